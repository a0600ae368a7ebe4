"""Who is measured: how each is found, started and set up, in the same places and with the same MTU."""

import json
import os
import shutil
import socket
import subprocess

from ground import BenchError, sh, stop, within

MTU = 1420

NEBULA = "github.com/slackhq/nebula/cmd"
WIREGUARD = "golang.zx2c4.com/wireguard@v0.0.0-20260522210424-ecfc5a8d5446"

# Private and public keys that anybody may know: what they carry is only counted.
KEYS = [
    ("11" * 32, "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13"),
    ("22" * 32, "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20"),
]


class Refused(BenchError):
    """Why a contender is not measured, in a sentence."""


class Contender:
    """Carries packets between two places; on this class itself, the bare cable does."""

    name = "raw link"
    device = "wire"
    target = "203.0.113.2"
    streams = (1, 4)
    is_direct = True
    # Whether a comparison would say nothing if the kernel cut its super-packets before it saw them.
    must_have_offloads = False

    def __init__(self, ground):
        self.near, self.far = ground.near, ground.far
        self.daemons = []

    def prepare(self, cache):
        """Finds or builds what it needs, once; gives its version."""
        return "veth"

    def start(self):
        """Starts its daemons and sets their devices up."""

    def end(self):
        stop(self.daemons)
        self.daemons = []

    def examine(self):
        """Refuses one that is not what it is measured as."""
        if self.must_have_offloads and "TSO" not in self.near.offloads(self.device):
            raise Refused(
                f"its device has no TCP segmentation offload here (ethtool -k {self.device}), and beside a rival without "
                "it anybody looks fast"
            )

    def _ends(self):
        """Place, number of this end, number of the other."""
        return [(self.near, 1, 2), (self.far, 2, 1)]


class Floor(Contender):
    """Our own bare pipeline, built for this processor."""

    target = "10.98.0.2"
    device = "floor"

    def __init__(self, ground, cipher):
        super().__init__(ground)
        self.cipher, self.name = cipher, f"floor, {cipher}"

    def prepare(self, cache):
        manifest = os.path.join(os.path.dirname(os.path.abspath(__file__)), "floor", "Cargo.toml")
        words = ["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", cache, "--manifest-path", manifest]
        environment = os.environ | {"RUSTFLAGS": "-C target-cpu=native"}
        if subprocess.run(words, env=environment).returncode != 0:
            raise Refused("it could not be built; cargo said why")
        self.program = os.path.join(cache, "release", "floor")
        return sh(["git", "-C", os.path.dirname(manifest), "describe", "--always", "--dirty"]).strip()

    def start(self):
        for place, own, other in self._ends():
            ports = [f"203.0.113.{number}:51830" for number in (own, other)]
            words = [self.program, self.device, *ports, self.cipher]
            self.daemons.append(place.start(words, "/dev/stderr"))
            await_device(place, self.device)
            set_up(place, self.device, f"10.98.0.{own}/24")
            # What one read gives fits into one send.
            place.sh(f"ip link set {self.device} gso_max_segs 45")


class WireguardGo(Contender):
    """The reference, built from its sources."""

    name = "wireguard-go"
    target = "10.97.0.2"
    device = "wg0"
    must_have_offloads = True

    def prepare(self, cache):
        self.program = os.path.join(cache, "wireguard")
        if not os.path.exists(self.program):
            if not shutil.which("go"):
                raise Refused("it cannot be built: there is no go here")
            environment = os.environ | {"GOBIN": os.path.abspath(cache)}
            if subprocess.run(["go", "install", WIREGUARD], env=environment).returncode != 0:
                raise Refused("it could not be built; go said why")
        return WIREGUARD.partition("@")[2]

    def start(self):
        for (place, own, other), (private, _), (_, public) in zip(self._ends(), KEYS, KEYS[::-1]):
            # Its sockets lie in one folder for all namespaces.
            device = f"{self.device}-{place.name[-1]}"
            self.daemons.append(place.start([self.program, "-f", device], "/dev/null", env={"LOG_LEVEL": "silent"}))
            self._configure(device, private, public, other)
            place.sh(f"ip link set {device} name {self.device}")
            set_up(place, self.device, f"10.97.0.{own}/24")

    @staticmethod
    def _configure(device, private, public, other):
        lines = [
            "set=1",
            f"private_key={private}",
            "listen_port=51820",
            f"public_key={public}",
            f"endpoint=203.0.113.{other}:51820",
            f"allowed_ip=10.97.0.{other}/32",
        ]
        with socket.socket(socket.AF_UNIX) as control:
            path = f"/var/run/wireguard/{device}.sock"
            within(path, lambda: control.connect_ex(path) == 0)
            control.sendall(("\n".join(lines) + "\n\n").encode())
            said = control.recv(4096).decode()
        if "errno=0" not in said:
            raise BenchError(f"wireguard-go refused its configuration: {said}")


class Nebula(Contender):
    """Measured with what offloads it has: its released versions had none."""

    name = "nebula"
    target = "10.96.0.2"
    device = "nebula"

    def __init__(self, ground, directory):
        super().__init__(ground)
        self.directory = os.path.join(directory, "nebula")

    def prepare(self, cache):
        path = os.pathsep.join([cache, os.environ.get("PATH", "")])
        self.program, cert = shutil.which("nebula", path=path), shutil.which("nebula-cert", path=path)
        if not self.program or not cert:
            wanted = " ".join(f"{NEBULA}/{name}@v1.9.7" for name in ("nebula", "nebula-cert"))
            raise Refused(f"it is not here; with Go: GOBIN={cache} go install {wanted}")
        os.makedirs(self.directory, exist_ok=True)
        ca = f"{self.directory}/ca"
        sh([cert, "ca", "-name", "bench", "-out-crt", f"{ca}.crt", "-out-key", f"{ca}.key"])
        for _, own, other in self._ends():
            path = f"{self.directory}/{own}"
            words = ["-name", f"end{own}", "-ip", f"10.96.0.{own}/24"]
            outputs = ["-out-crt", f"{path}.crt", "-out-key", f"{path}.key"]
            sh([cert, "sign", "-ca-crt", f"{ca}.crt", "-ca-key", f"{ca}.key", *words, *outputs])
            with open(f"{path}.yml", "w") as file:
                file.write(self._config(ca, path, other))
        said = sh([self.program, "-version"]).partition(":")[2].strip()
        return said or "built from source"

    def start(self):
        for place, own, _ in self._ends():
            log = f"{self.directory}/{own}.log"
            self.daemons.append(place.start([self.program, "-config", f"{self.directory}/{own}.yml"], log))

    def _config(self, ca, path, other):
        return f"""
pki: {{ca: {ca}.crt, cert: {path}.crt, key: {path}.key}}
static_host_map: {{"10.96.0.{other}": ["203.0.113.{other}:4242"]}}
lighthouse: {{am_lighthouse: false}}
listen: {{host: 0.0.0.0, port: 4242}}
tun: {{dev: {self.device}, mtu: {MTU}}}
logging: {{level: warning}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"""


# The host's own resolver is nobody's business here, and nobody is outside.
CONFIG = f"""
[tun]
mtu = {MTU}
[dns]
mode = "off"
[rendezvous]
dht = false
port_mapping = false
"""


class Webmesh(Contender):
    """Ours: agents with state directories of their own, which are members from the beginning."""

    name = "webmesh"
    device = "wm0"
    # What its configuration says beyond what every contender's says.
    config = ""

    def __init__(self, ground, program, directory):
        super().__init__(ground)
        self.program, self.directory = program, directory
        self.places = [self.near, self.far]

    def prepare(self, cache):
        self.directory = os.path.join(self.directory, self.name.replace(" ", "-"))
        os.makedirs(self.directory)
        for place in self.places:
            with open(self._file(place, "toml"), "w") as file:
                file.write(f"{CONFIG}{self.config}")
        self.start()
        try:
            self._form()
        finally:
            self.end()
        return sh([self.program, "--version"]).split()[-1]

    def start(self):
        for place in self.places:
            options = {"state-dir": "state", "socket": "sock", "config": "toml"}
            words = [word for name, end in options.items() for word in (f"--{name}", self._file(place, end))]
            log = self._file(place, "log")
            self.daemons.append(place.start([self.program, "daemon", "--tun", self.device, *words], log))

    def _form(self):
        """The last founds, the others join it."""
        founder = self.places[-1]
        within("the founder's agent", lambda: os.path.exists(self._file(founder, "sock")))
        self._say(founder, "init", "bench")
        for place in self.places[:-1]:
            within("an agent", lambda: os.path.exists(self._file(place, "sock")))
            self._say(place, "join", self._say(founder, "invite").strip())
        status = json.loads(self._say(self.far, "status", "--json"))
        self.target = status["self"]["ipv4"]
        self.near.ping(self.target)

    def _peers(self):
        """What the near end says of the others."""
        return json.loads(self._say(self.near, "status", "--json"))["peers"]

    def _say(self, place, *words):
        done = place.run([self.program, "--socket", self._file(place, "sock"), *words])
        if done.returncode != 0:
            raise BenchError(f"webmesh {words[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def _file(self, place, end):
        return os.path.join(self.directory, f"{place.name.rpartition('-')[2]}.{end}")


class ChaCha(Webmesh):
    """Ours, with the cipher for machines that have no AES in hardware."""

    name = "webmesh, chacha"
    is_direct = False
    config = '[datapath]\ntransport = "chacha20-poly1305"\n'

    def examine(self):
        super().examine()
        within("data sealed by ChaCha20", lambda: self._peers()[0]["transport"] == "chacha20-poly1305")


class Relayed(Webmesh):
    """Ours, between two that reach each other by a third alone."""

    name = "webmesh, relayed"
    streams = (1,)
    is_direct = False
    # A relay's own limit, of which one member gets half, is a setting; what it could carry is asked for here.
    config = "[relay]\nlimit = 1000000\n"

    def __init__(self, ground, program, directory):
        super().__init__(ground, program, directory)
        self.ground = ground

    def prepare(self, cache):
        self.places = self.ground.apart()
        self.near, self.far, _ = self.places
        return super().prepare(cache)

    def examine(self):
        super().examine()
        within("a path by the relay", self._is_relayed)

    def _is_relayed(self):
        return any(peer["path"] and peer["path"]["kind"] == "relay" for peer in self._peers())


def await_device(place, device):
    within(f"the device {device}", lambda: place.run(["ip", "link", "show", device]).returncode == 0)


def set_up(place, device, address):
    # Without an IPv6 address of its own it has nothing to say by itself.
    place.sh(f"ip link set {device} addrgenmode none mtu {MTU}")
    place.sh(f"ip addr add {address} dev {device}")
    place.sh(f"ip link set {device} up")
