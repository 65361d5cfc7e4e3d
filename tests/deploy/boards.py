"""File systems of made-up machines, with what Linux shows of their sensors."""

from __future__ import annotations

from pathlib import Path

TEGRASTATS_ORIN = (
    "11-26-2026 10:00:01 RAM 3216/7620MB (lfb 4x2MB) SWAP 12/3810MB (cached 0MB) CPU "
    "[12%@1510,8%@1510,off,off,0%@729,1%@729] EMC_FREQ 0%@2133 GR3D_FREQ 37%@[624] "
    "NVDEC off cpu@51.312C soc2@49.5C soc0@50.093C gpu@52.687C tj@52.687C soc1@50C "
    "cv0@-256C VDD_IN 6853mW/6412mW VDD_CPU_GPU_CV 1921mW/1800mW VDD_SOC "
    "1602mW/1598mW"
)
TEGRASTATS_XAVIER = (
    "RAM 2710/15692MB (lfb 1x4MB) SWAP 0/7846MB (cached 0MB) CPU "
    "[7%@1190,3%@1190,off,off,off,off,off,off] EMC_FREQ 0% GR3D_FREQ 4% AO@38C "
    "GPU@38.5C iwlwifi@40C Tboard@38C Tdiode@41.75C AUX@38.5C CPU@39.5C "
    "thermal@39.05C PMIC@100C GPU 621/621 CPU 777/932 SOC 1243/1243 CV 0/0 VDDRQ "
    "310/310 SYS5V 2148/2148"
)
NVPMODEL = """
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=15W >
< POWER_MODEL ID=2 NAME=7W >
< PM_CONFIG DEFAULT=1 >
"""


def put(root: Path, path: str, text: str) -> None:
    """Write a file of a made-up machine."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def orin(root: Path) -> Path:
    """A Jetson Orin Nano on JetPack 6.2, at 7 W of load."""
    put(root, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    put(
        root,
        "proc/device-tree/compatible",
        "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
    )
    put(
        root,
        "etc/nv_tegra_release",
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
    )
    put(root, "etc/nvpmodel.conf", NVPMODEL)
    put(root, "var/lib/nvpmodel/status", "pmode:0001 fmode:quiet\n")
    monitor(root, "hwmon1", VDD_IN=(5040, 1360), VDD_CPU_GPU_CV=(5032, 382), NC=(0, 0))
    put(root, "sys/class/hwmon/hwmon1/in7_label", "sum of shunt voltages")
    put(root, "sys/class/hwmon/hwmon2/name", "soctherm_oc\n")
    put(root, "sys/class/hwmon/hwmon2/oc1_event_cnt", "3\n")
    put(root, "sys/class/hwmon/hwmon2/oc3_event_cnt", "1\n")
    zone(root, 0, "cpu-thermal", "51312")
    zone(root, 1, "gpu-thermal", "52687")
    zone(root, 2, "cv0-thermal", "-256000")
    # Parts that are switched off cannot be read at all.
    put(root, "sys/class/thermal/thermal_zone3/type", "cv1-thermal\n")
    (root / "sys/class/thermal/thermal_zone3/temp").mkdir()
    gpu = "sys/class/devfreq/17000000.gpu/device"
    put(root, f"{gpu}/of_node/name", "gpu\0")
    put(root, f"{gpu}/load", "370\n")
    return root


def xavier(root: Path) -> Path:
    """A Jetson AGX Xavier on JetPack 5, which has no rail for its whole input."""
    put(root, "proc/device-tree/model", "Jetson-AGX\0")
    put(root, "proc/device-tree/compatible", "nvidia,p2972-0000\0nvidia,tegra194\0")
    put(
        root,
        "etc/nv_tegra_release",
        "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref",
    )
    put(root, "var/lib/nvpmodel/status", "pmode:0003\n")
    monitor(root, "hwmon3", GPU=(19000, 32), CPU=(19000, 41), SOC=(19000, 65))
    monitor(root, "hwmon4", CV=(19000, 0), VDDRQ=(19000, 16), SYS5V=(19000, 113))
    zone(root, 0, "CPU-therm", "39500")
    zone(root, 1, "PMIC-Die", "100000")
    gpu = "sys/class/devfreq/17000000.gv11b/device"
    put(root, f"{gpu}/of_node/name", "gv11b\0")
    put(root, f"{gpu}/load", "40\n")
    return root


def x86(root: Path) -> Path:
    """A machine that measures its temperature and nothing else."""
    zone(root, 0, "x86_pkg_temp", "47000")
    put(root, "sys/class/hwmon/hwmon0/name", "coretemp\n")
    put(root, "sys/class/power_supply/AC/type", "Mains\n")
    put(root, "sys/class/power_supply/AC/online", "1\n")
    return root


def monitor(root: Path, folder: str, **rails: tuple[int, int]) -> None:
    """Add a power monitor with millivolts and milliamperes by the rail's name."""
    path = f"sys/class/hwmon/{folder}"
    put(root, f"{path}/name", "ina3221\n")
    for number, (name, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        put(root, f"{path}/in{number}_label", f"{name}\n")
        put(root, f"{path}/in{number}_input", f"{millivolts}\n")
        put(root, f"{path}/curr{number}_input", f"{milliamperes}\n")


def zone(root: Path, number: int, kind: str, thousandths: str) -> None:
    """Add a thermal zone."""
    path = f"sys/class/thermal/thermal_zone{number}"
    put(root, f"{path}/type", f"{kind}\n")
    put(root, f"{path}/temp", f"{thousandths}\n")


def battery(root: Path, *, percent: int, status: str) -> None:
    """Add a battery."""
    path = "sys/class/power_supply/BAT0"
    put(root, f"{path}/type", "Battery\n")
    put(root, f"{path}/capacity", f"{percent}\n")
    put(root, f"{path}/status", f"{status}\n")
