package io.flwrcaesar.android

import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.app.job.JobService
import android.content.ComponentName
import android.content.Context
import android.util.Log
import io.flwrcaesar.node.Heart
import io.flwrcaesar.node.Node

/**
 * Serves a fleet while the system lets it: charging, idle and on a network that costs nothing.
 *
 * The system ends a job after some minutes, or when its conditions end. Whatever is in flight is on
 * disk, and the next job goes on with it: with a training too, if its engine can.
 */
abstract class NodeJob : JobService() {
    private var worker: Thread? = null

    /** Returns the node of this app; it is started by the job. */
    protected abstract fun node(): Node

    /** Whether the device may go on; looked at between two messages. */
    protected abstract fun conditions(): Conditions

    override fun onStartJob(params: JobParameters): Boolean {
        worker = Thread({ serve(params) }, "flwr-caesar").also { it.start() }
        return true
    }

    override fun onStopJob(params: JobParameters): Boolean {
        worker?.interrupt()
        return true // to be scheduled again
    }

    private fun serve(params: JobParameters) {
        var isToGoOn = true
        try {
            val node = node()
            node.start()
            isToGoOn = Heart(node::beat, node.interval).use { serve(node) }
        } catch (_: InterruptedException) {
            return // the system ended the job, and does not want to hear of it
        } catch (@Suppress("TooGenericExceptionCaught") err: Exception) {
            Log.w(TAG, "the job ends: the server cannot be reached, or another job has not ended yet", err)
        }
        jobFinished(params, isToGoOn)
    }

    // Tells whether there may be more to do.
    private fun serve(node: Node): Boolean {
        var idle = 0
        while (idle < MOST_POLLS && conditions().declines.isEmpty()) {
            if (node.step()) idle = 0 else idle++
            Thread.sleep(POLL_MS)
        }
        return idle < MOST_POLLS
    }

    companion object {
        private const val TAG = "flwr-caesar"
        private const val POLL_MS = 15_000L
        private const val MOST_POLLS = 8
        private const val PERIOD_MS = 15 * 60 * 1000L

        /** Has the system run a job of this kind from now on, after restarts too. */
        fun schedule(context: Context, job: Class<out NodeJob>, policy: Policy = Policy(), id: Int = 1): Boolean {
            val info =
                JobInfo
                    .Builder(id, ComponentName(context, job))
                    .setRequiresCharging(true)
                    .setRequiresDeviceIdle(true)
                    .setRequiredNetworkType(
                        if (policy.allowsMetered) JobInfo.NETWORK_TYPE_ANY else JobInfo.NETWORK_TYPE_UNMETERED,
                    ).setPeriodic(PERIOD_MS)
                    .setPersisted(true)
                    .build()
            val scheduler = context.getSystemService(Context.JOB_SCHEDULER_SERVICE) as JobScheduler
            return scheduler.schedule(info) == JobScheduler.RESULT_SUCCESS
        }
    }
}
