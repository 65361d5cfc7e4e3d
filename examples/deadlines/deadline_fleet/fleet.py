"""The devices that a simulation pretends to have."""

from flwr_caesar.plan import DeviceClass, LinkClass, PowerMode, Profile, VirtualClock

FLEET = Profile(
    "example",
    devices=[
        DeviceClass(
            "orin",
            share=3,
            utilisation=0.3,
            modes=[PowerMode("50w", 3.4e12), PowerMode("15w", 1.3e12)],
            links={"wifi": 1},
        ),
        DeviceClass(
            "tx2",
            share=1,
            utilisation=0.3,
            modes=[PowerMode("maxq", 4.4e11)],
            links={"wifi": 1, "nb_iot": 1},
        ),
    ],
    links=[
        LinkClass("wifi", down_bps=20e6, up_bps=15e6, spread=0.4, drift=0.2),
        LinkClass("nb_iot", down_bps=40e3, up_bps=20e3, spread=0.4, drift=0.4),
    ],
    # Of training on one sample: a large network's, as the example's takes no time.
    flops_per_sample=1e10,
)


def clock(devices: int) -> VirtualClock:
    """Return a clock that charges devices for what they send and compute."""
    return VirtualClock(FLEET, devices, seed=0)
