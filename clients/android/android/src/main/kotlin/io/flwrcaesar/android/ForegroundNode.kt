package io.flwrcaesar.android

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.Service
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.os.Build
import android.os.IBinder
import android.util.Log
import io.flwrcaesar.node.Heart
import io.flwrcaesar.node.Node

/**
 * Serves a fleet while its owner looks on, with a notification that says so.
 *
 * For training that somebody started and that is longer than a job may be. Since Android 15 the
 * system allows a service of this kind six hours of a day, and then calls [onTimeout].
 */
abstract class ForegroundNode : Service() {
    private var worker: Thread? = null

    /** Returns the node of this app; it is started by the service. */
    protected abstract fun node(): Node

    /** The icon of the notification. */
    protected abstract val icon: Int

    override fun onBind(intent: Intent): IBinder? = null

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        show()
        if (worker == null) worker = Thread(::serve, "flwr-caesar").also { it.start() }
        return START_STICKY
    }

    override fun onTimeout(startId: Int, fgsType: Int) = stopSelf()

    override fun onDestroy() {
        worker?.interrupt()
        super.onDestroy()
    }

    private fun show() {
        val manager = getSystemService(Context.NOTIFICATION_SERVICE) as NotificationManager
        manager.createNotificationChannel(NotificationChannel(CHANNEL, "Training", NotificationManager.IMPORTANCE_LOW))
        val notification =
            Notification.Builder(this, CHANNEL).setContentTitle("Training").setSmallIcon(icon).setOngoing(true).build()
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) {
            startForeground(NOTIFICATION, notification, ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC)
        } else {
            startForeground(NOTIFICATION, notification)
        }
    }

    private fun serve() {
        try {
            val node = node()
            node.start()
            Heart(node::beat, node.interval).use { while (true) if (!node.step()) Thread.sleep(POLL_MS) }
        } catch (_: InterruptedException) {
            return // the service was stopped
        } catch (@Suppress("TooGenericExceptionCaught") err: Exception) {
            Log.w(TAG, "the service ends: the server cannot be reached, or a job has not ended yet", err)
            stopSelf()
        }
    }

    private companion object {
        const val TAG = "flwr-caesar"
        const val CHANNEL = "flwr-caesar"
        const val NOTIFICATION = 1
        const val POLL_MS = 3_000L
    }
}
