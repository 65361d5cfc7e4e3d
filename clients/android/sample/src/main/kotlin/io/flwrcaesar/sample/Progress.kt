package io.flwrcaesar.sample

import android.content.Context
import android.content.SharedPreferences

/** How many updates this device has made, for its owner to see. */
internal object Progress {
    private const val NAME = "progress"
    private const val UPDATES = "updates"

    fun updates(context: Context): Int = settings(context).getInt(UPDATES, 0)

    fun count(context: Context) {
        settings(context).edit().putInt(UPDATES, updates(context) + 1).apply()
    }

    private fun settings(context: Context): SharedPreferences = context.getSharedPreferences(NAME, Context.MODE_PRIVATE)
}
