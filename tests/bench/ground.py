"""The ground of a run: namespaces, cables, programs inside, and what the kernel counts about them."""

import os
import subprocess
import time

CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"

# What others than the host's own namespace may choose from.
ALLOWED = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"

# How long anything here may take before the run gives up on it.
LIMIT_S = 20


class BenchError(Exception):
    """What could not be done, in a sentence."""


def sh(line):
    """A command outside, which must succeed; gives what it said."""
    done = subprocess.run(line, shell=isinstance(line, str), capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"`{line}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def within(what, condition, limit_s=LIMIT_S):
    """Waits until the condition gives something true, and gives that."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise BenchError(f"{what}: not within {limit_s} s")


class Place:
    """A network namespace with what runs in it."""

    def __init__(self, name):
        self.name = f"wmbench{os.getpid()}-{name}"
        sh(["ip", "netns", "add", self.name])
        self.sh("ip link set lo up")
        # The default of the place, before any socket is there: one that begins as bbr keeps its pacing whatever it is told
        # later. The machine's own default stays as it is.
        self.sh(["sh", "-c", f"echo cubic > {CONGESTION}"])

    def sh(self, line):
        return sh(["ip", "netns", "exec", self.name, *(line.split() if isinstance(line, str) else line)])

    def run(self, words, **options):
        """A program inside, to its end, whatever that is."""
        try:
            return subprocess.run(self._inside(words), capture_output=True, text=True, **options)
        except subprocess.TimeoutExpired:
            raise BenchError(f"`{' '.join(words)}` did not end by itself") from None

    def start(self, words, log, **options):
        """A program that runs beside; its number is its own, since `ip` becomes it."""
        with open(log, "a") as file:
            return subprocess.Popen(self._inside(words), stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options)

    def ping(self, address):
        """Waits for the first answer; sends fifty a second until then."""
        words = ["ping", "-n", "-q", "-c", "1", "-i", "0.02", "-w", str(LIMIT_S), address]
        within(f"an answer from {address}", lambda: self.run(words).returncode == 0)

    def await_port(self, port):
        within(f"a listener on port {port}", lambda: self.sh(f"ss -Hltn sport = :{port}"))

    def received(self, device):
        """The bytes that a device took in."""
        return int(self.sh(f"cat /sys/class/net/{device}/statistics/rx_bytes"))

    def offloads(self, device):
        """Which segmentation the kernel leaves to a device."""
        said = self.sh(f"ethtool -k {device}")
        known = {"TSO": "tx-tcp-segmentation: on", "USO": "tx-udp-segmentation: on"}
        return [name for name, line in known.items() if line in said]

    def remove(self):
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)

    def _inside(self, words):
        return ["ip", "netns", "exec", self.name, *words]


class Ground:
    """Two places with one cable between them, and three of which two reach each other by the third alone."""

    def __enter__(self):
        self.places = []
        with open(ALLOWED) as file:
            self.allowed = file.read()
        try:
            self._allow(f"{self.allowed.strip()} cubic")
            self.near, self.far = self._add("a"), self._add("b")
            sh(f"ip link add wire netns {self.near.name} type veth peer name wire netns {self.far.name}")
            for number, place in enumerate([self.near, self.far], 1):
                place.sh(f"ip addr add 203.0.113.{number}/24 dev wire")
                place.sh("ip link set wire up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for place in self.places:
            place.remove()
        self._allow(self.allowed)

    @staticmethod
    def _allow(names):
        with open(ALLOWED, "w") as file:
            file.write(names)

    def apart(self):
        """Two places that the switch keeps apart, and a third that both reach."""
        switch = self._add("switch")
        switch.sh("ip link add switch type bridge")
        switch.sh("ip link set switch up")
        places = []
        for number, name in enumerate(["c", "d", "relay"], 11):
            place = self._add(name)
            sh(f"ip link add wire netns {place.name} type veth peer name to-{name} netns {switch.name}")
            switch.sh(f"ip link set to-{name} master switch up")
            if name != "relay":
                switch.sh(f"bridge link set dev to-{name} isolated on")
            place.sh(f"ip addr add 203.0.113.{number}/24 dev wire")
            place.sh("ip link set wire up")
            places.append(place)
        return places

    def _add(self, name):
        place = Place(name)
        self.places.append(place)
        return place


def stop(processes):
    """Asks them to end, then makes them."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_of(processes):
    """The seconds of CPU that these used so far."""
    ticks = 0
    for process in processes:
        with open(f"/proc/{process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mib(process):
    """The most memory that it had at once."""
    with open(f"/proc/{process.pid}/status") as file:
        peak = next(line for line in file if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


def machine():
    """The seconds of CPU since boot that the machine was busy, that the host stole, and all."""
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, stolen = ticks
    busy = user + nice + system + irq + softirq
    seconds = os.sysconf("SC_CLK_TCK")
    return busy / seconds, stolen / seconds, (busy + stolen + idle + iowait) / seconds
