package io.flwrcaesar.sample

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.TextView
import io.flwrcaesar.android.Conditions
import io.flwrcaesar.android.Membership
import io.flwrcaesar.android.NodeJob
import io.flwrcaesar.enrol.EnrolmentException
import java.io.IOException

/** One screen: where the device is a member, whether it trains now, and a place for a ticket. */
class MainActivity : Activity() {
    private lateinit var status: TextView
    private lateinit var ticket: EditText

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        status = TextView(this)
        ticket = EditText(this)
        val join = Button(this)
        join.text = "Join"
        join.setOnClickListener { join(ticket.text.toString()) }
        val column = LinearLayout(this)
        column.orientation = LinearLayout.VERTICAL
        listOf(status, ticket, join).forEach(column::addView)
        setContentView(column)
        fill(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        fill(intent)
    }

    // The URI of a scanned ticket. Its owner still has to press the button: any web page can open such a URI.
    private fun fill(intent: Intent) {
        if (intent.action == Intent.ACTION_VIEW) ticket.setText(intent.dataString)
    }

    override fun onResume() {
        super.onResume()
        show(describe())
    }

    private fun describe(): String {
        val server = Membership(this).server ?: return "Not in a fleet. Scan the QR code of a ticket with the camera, or paste its text."
        val declines = Conditions(this).declines.ifEmpty { "nothing, it trains when it is idle and charging" }
        return "Member at $server.\nWhat keeps it from training now: $declines.\nUpdates made: ${Progress.updates(this)}"
    }

    private fun join(ticket: String) {
        Thread {
            val said =
                try {
                    val place = Membership(this).join(ticket)
                    NodeJob.schedule(this, SampleJob::class.java)
                    "Joined as ${place.name}."
                } catch (err: EnrolmentException) {
                    "${err.message}"
                } catch (err: IOException) {
                    "The server cannot be reached: ${err.message}"
                }
            runOnUiThread { show(said) }
        }.start()
    }

    private fun show(text: String) {
        status.text = text
    }
}
