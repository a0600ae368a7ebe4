"""What is measured of one contender, once it carries packets."""

import json
import math
import re
import statistics
import time

from ground import LIMIT_S, BenchError, cpu_of, machine, peak_mib, stop

PORT = "5201"

# Between these, in datagrams per second, the most that arrives is searched.
FEWEST, MOST = 4_000, 500_000
ALLOWED_LOSS = 0.01


class Visit:
    """One contender, started, seen from the place where the programs run that send."""

    def __init__(self, contender, effort, directory):
        self.contender, self.effort = contender, effort
        self.server = contender.far.start(["iperf3", "-s"], f"{directory}/iperf3.log")
        contender.far.await_port(PORT)

    def end(self):
        stop([self.server])

    def all(self):
        """Every figure that this contender is asked for."""
        figures = self.idle()
        for streams in self.contender.streams:
            figures |= self.tcp(streams, "forth") | self.tcp(streams, "back")
        if self.contender.is_direct:
            figures |= self.loaded() | self.small()
        if self.contender.daemons:
            figures["memory_mib"] = max(peak_mib(daemon) for daemon in self.contender.daemons)
        return figures

    def idle(self):
        return {"ping_ms": statistics.median(self._pings(self.effort.pings))}

    def tcp(self, streams, direction):
        """Gbit/s, and the CPU of the daemons and of the machine for each GB that the device took in meanwhile."""
        words = ["-t", str(self.effort.seconds), "-O", "1", "-P", str(streams), *(["-R"] if direction == "back" else [])]
        taker = self.contender.far if direction == "forth" else self.contender.near
        daemons, device = self.contender.daemons, self.contender.device
        before = taker.received(device), cpu_of(daemons), machine()[0]
        speed = self._iperf(words)["end"]["sum_received"]["bits_per_second"] / 1e9
        after = taker.received(device), cpu_of(daemons), machine()[0]
        gigabytes, of_daemons, of_all = [late - early for early, late in zip(before, after)]
        gigabytes /= 1e9
        name = f"tcp{streams}_{direction}"
        return {
            f"{name}_gbit": speed,
            f"{name}_daemons_s_per_gb": of_daemons / gigabytes,
            f"{name}_machine_s_per_gb": of_all / gigabytes,
        }

    def loaded(self):
        """The slowest of a hundred pings beside one stream."""
        words = ["iperf3", "-c", self.contender.target, "-t", str(self.effort.seconds + 1)]
        load = self.contender.near.start(words, "/dev/null")
        try:
            pings = sorted(self._pings(self.effort.seconds * 100))
            load.wait(self.effort.seconds + LIMIT_S)
        finally:
            stop([load])
        return {"ping_loaded_p99_ms": pings[math.ceil(len(pings) * 0.99) - 1]}

    def small(self):
        """The most datagrams of 64 bytes a second that arrive with less than 1 % lost."""
        fewest, most, best = FEWEST, MOST, 0
        for _ in range(self.effort.halvings):
            wanted = math.sqrt(fewest * most)
            arrived, loss = self._flood(wanted)
            if loss < ALLOWED_LOSS:
                fewest, best = wanted, max(best, arrived)
            else:
                most = wanted
        return {"udp64_kpps": best / 1000}

    def _flood(self, wanted):
        """How many datagrams a second arrived of so many, and the share that was lost."""
        words = ["-u", "-l", "64", "-b", str(int(wanted * 64 * 8)), "-t", str(self.effort.udp_seconds)]
        try:
            total = self._iperf(words)["end"]["sum"]
        except BenchError:
            # The flood drowned iperf3's own connection.
            return 0, 1
        packets, lost = total["packets"], total["lost_packets"]
        return (packets - lost) / total["seconds"], lost / packets if packets else 1

    def _pings(self, count):
        """The times of so many pings, a hundred a second, or of as many as there is time for."""
        deadline = str(math.ceil(count / 100))
        words = ["ping", "-n", "-c", str(count), "-i", "0.01", "-w", deadline, self.contender.target]
        said = self.contender.near.run(words).stdout
        times = [float(time) for time in re.findall(r"time=([\d.]+) ms", said)]
        if not times:
            raise BenchError(f"{self.contender.name}: no ping came back")
        return times

    def _iperf(self, words):
        """What iperf3 says; its server may still be busy with a run that was cut off."""
        words = ["iperf3", "-J", "-c", self.contender.target, *words]
        until = time.monotonic() + LIMIT_S
        while True:
            done = self.contender.near.run(words, timeout=self.effort.seconds + LIMIT_S)
            try:
                result = json.loads(done.stdout)
            except ValueError:
                raise BenchError(f"{self.contender.name}: iperf3 said no JSON: {done.stdout}{done.stderr}") from None
            if "error" not in result:
                return result
            if "busy" not in result["error"] or time.monotonic() > until:
                raise BenchError(f"{self.contender.name}: iperf3: {result['error']}")
            time.sleep(0.1)
