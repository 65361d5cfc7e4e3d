package io.flwrcaesar.android

import android.content.Context
import android.net.ConnectivityManager
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import io.flwrcaesar.device.Watch

/**
 * When a device trains.
 *
 * @property leastBattery percent of charge below which a device that is not charging declines.
 * @property allowsMetered whether it may use a network that somebody pays for by the byte.
 * @property hottest the thermal status from which it declines; see [PowerManager].
 */
class Policy(
    val leastBattery: Int = 30,
    val allowsMetered: Boolean = false,
    val hottest: Int = PowerManager.THERMAL_STATUS_MODERATE,
)

/** Whether the device may train now, and why not. */
class Conditions(context: Context, private val policy: Policy = Policy()) : Watch {
    private val battery = context.getSystemService(Context.BATTERY_SERVICE) as BatteryManager
    private val power = context.getSystemService(Context.POWER_SERVICE) as PowerManager
    private val network = context.getSystemService(Context.CONNECTIVITY_SERVICE) as ConnectivityManager

    override val declines: String
        get() =
            when {
                power.isPowerSaveMode -> "the device saves power"
                thermalStatus >= policy.hottest -> "the device is warm, thermal status $thermalStatus"
                charge < policy.leastBattery && !battery.isCharging -> "the battery has $charge %"
                !policy.allowsMetered && network.isActiveNetworkMetered -> "the network is a metered one"
                else -> ""
            }

    override fun telemetry(): Map<String, Any?> =
        mapOf("source" to "android", "power-mode" to if (battery.isCharging) "charging" else "battery $charge %")

    private val charge get() = battery.getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY)

    // Before Android 10 the system does not say how warm it is.
    private val thermalStatus get() =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) power.currentThermalStatus else 0
}
