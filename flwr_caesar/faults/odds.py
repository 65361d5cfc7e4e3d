"""How often which fault strikes."""

# Chance for each message sent.
MESSAGE_FAULTS = {
    "drop": 0.04,
    "delay": 0.08,
    "duplicate": 0.08,
    "corrupt-frame": 0.03,
    "corrupt-header": 0.03,
}
# For each message delivered.
REORDER = 0.2
READ_ERROR = "device-read-error"
"""Of a state that is kept in Flower's Context; see `DISK_FAULTS` for those on disks."""
# For each request that a device works on.
DEVICE_FAULTS = {
    "device-crash-before-write": 0.04,
    "device-crash-after-write": 0.05,
    "device-disk-full": 0.03,
    READ_ERROR: 0.03,
}
# For each request that a device with a disk works on, if nothing else strikes it.
DISK_FAULTS = {
    "disk-read-error": 0.06,
    "disk-write-error": 0.04,
    "disk-moved": 0.04,
    "app-killed-with-child": 0.02,
}
# For each device and round.
DEVICE_EVENTS = {
    "device-restored": 0.002,
    "device-deleted": 0.001,
    "device-copied": 0.001,
    "device-new-node": 0.01,
}
# For each phase.
SERVER_FAULTS = {
    "server-crash-open": 0.03,
    "server-crash-before-commit": 0.04,
    "server-crash-after-commit": 0.04,
    "server-restored": 0.01,
    "server-clock-back": 0.005,
    "server-clock-stays-back": 0.005,
}
DEADLINE = 0.2
MOST_LIVES_BACK = 8
"""For how many lives of a server, at most, its clock stays back."""
