"""A service manager for one service, as much of systemd as the agent sees: the notify socket with its store of
descriptors, and the part of the system bus on which it asks for its unit's job.

    service_manager.py DIRECTORY PROGRAM ARGUMENT...

reads one word per line from stdin and does it; "done" on stdout says that it is:

    start           the service runs and has said READY
    halt            TERM with a job "restart"
    restart         halt, then start
    kill            KILL, then start
    reload          HUP, and the service has said RELOADING and READY
    stop            TERM with a job "stop"; the store is emptied when the service has ended
    term            TERM without a job, as by hand
    mute            the bus takes calls and does not answer any more
    spoil OLD NEW   what is stored under OLD is from now on stored under NEW
    lend NAME PORT  a UDP socket on that port is stored under NAME, in the place of what was
    make NAME       a device wm0 of another kind is stored under NAME, in the place of what was

Everything that happens is a line of DIRECTORY/manager.log: `said KEY=VALUE`, `stored NAME`, `removed NAME`.
"""

import array
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

DIRECTORY, *COMMAND = sys.argv[1:]
NOTIFY = os.path.join(DIRECTORY, "notify.sock")
BUS = os.path.join(DIRECTORY, "bus.sock")
LOG = open(os.path.join(DIRECTORY, "manager.log"), "a", buffering=1)
LISTEN_FDS_START = 3

store = []  # (name, descriptor), in their order
job = None
mute = False


def log(line):
    LOG.write(f"{time.monotonic():.3f} {line}\n")


# The notify socket.

def remove(name):
    for entry in [entry for entry in store if entry[0] == name]:
        store.remove(entry)
        os.close(entry[1])
        log(f"removed {name}")


def take(message, descriptors):
    words = dict(line.split("=", 1) for line in message.decode().splitlines() if line)
    name = words.get("FDNAME", "stored")
    if "FDSTORE" in words:
        assert words.get("FDPOLL") == "0" and ":" not in name and len(descriptors) == 1, words
        store.append((name, descriptors[0]))
        log(f"stored {name}")
    elif "FDSTOREREMOVE" in words:
        remove(name)
    elif "BARRIER" in words:
        for descriptor in descriptors:
            os.close(descriptor)
    else:
        for key, value in words.items():
            log(f"said {key}={value}")
    return words


def messages(notify, until, limit):
    """Takes what the service says until it says `until`, ends, or the limit is over; tells whether it was said."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        ready, _, _ = select.select([notify], [], [], 0.01)
        if not ready:
            if until is None or (service and service.poll() is not None):
                return False
            continue
        message, control, _, _ = notify.recvmsg(4096, 4096, socket.MSG_CMSG_CLOEXEC)
        descriptors = array.array("i")
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        words = take(message, list(descriptors))
        if until is not None and until in words:
            return True
    return False


# The service.

def launch():
    environment = dict(os.environ, NOTIFY_SOCKET=NOTIFY, WATCHDOG_USEC="2000000",
                       DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={BUS}")
    copies = [os.dup(descriptor) for _, descriptor in store]
    environment["LISTEN_FDS"] = str(len(copies))
    environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in store)
    # exec keeps the number of the process, so the shell's is the service's.
    numbered = ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"] if copies else []

    def place():
        # Out of each other's way first.
        away = [os.dup2(copy, 100 + number) for number, copy in enumerate(copies)]
        for number, copy in enumerate(away):
            os.dup2(copy, LISTEN_FDS_START + number)
            os.close(copy)

    output = open(os.path.join(DIRECTORY, "agent.log"), "a")
    child = subprocess.Popen(numbered + COMMAND, env=environment, preexec_fn=place, stdout=output,
                             stderr=output, close_fds=False)
    for copy in copies:
        os.close(copy)
    return child


def start():
    global service
    service = launch()
    began = time.monotonic()
    assert messages(notify, "READY", 20), "the service did not come up"
    log(f"up {time.monotonic() - began:.3f}")


def end(number, reason):
    global job
    job = reason
    began = time.monotonic()
    service.send_signal(number)
    # As systemd: what it says until it is gone counts.
    messages(notify, "never", 20)
    service.wait(20)
    messages(notify, None, 1)
    job = None
    log(f"ended {time.monotonic() - began:.3f}")


def lend(name, port):
    remove(name)
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("", int(port)))
    store.append((name, other.detach()))


def make(name):
    remove(name)
    device = os.open("/dev/net/tun", os.O_RDWR)
    # TUNSETIFF with IFF_TUN and IFF_NO_PI.
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"wm0", 0x0001 | 0x1000))
    store.append((name, device))


def do(verb, *arguments):
    global mute
    if verb == "start":
        start()
    elif verb == "halt":
        end(signal.SIGTERM, "restart")
    elif verb == "restart":
        end(signal.SIGTERM, "restart")
        start()
    elif verb == "kill":
        end(signal.SIGKILL, None)
        start()
    elif verb == "reload":
        service.send_signal(signal.SIGHUP)
        assert messages(notify, "RELOADING", 5) and messages(notify, "READY", 5)
    elif verb == "stop":
        end(signal.SIGTERM, "stop")
        for name, _ in list(store):
            remove(name)
    elif verb == "term":
        end(signal.SIGTERM, None)
    elif verb == "mute":
        mute = True
    elif verb == "spoil":
        old, new = arguments
        store[:] = [(new if name == old else name, descriptor) for name, descriptor in store]
    elif verb == "lend":
        lend(*arguments)
    elif verb == "make":
        make(*arguments)
    else:
        raise ValueError(verb)


# The bus: four methods of the D-Bus specification's wire format, little endian.

def pad(data, to):
    return data + bytes(-len(data) % to)


def text(value):
    return struct.pack("<I", len(value)) + value.encode() + b"\0"


def signature(value):
    return bytes([len(value)]) + value.encode() + b"\0"


def reply(serial, kind, body):
    fields = b"\x05" + signature("u") + struct.pack("<I", serial)
    fields = pad(fields, 8) + b"\x08" + signature("g") + signature(kind)
    head = struct.pack("<cBBBIII", b"l", 2, 1, 1, len(body), 1, len(fields))
    return pad(head + fields, 8) + body


def answer(serial, message):
    if b"GetUnitByPID" in message:
        return reply(serial, "o", text("/unit"))
    if b"JobType" in message:
        return reply(serial, "v", pad(signature("s"), 4) + text(job))
    if b"Job\0" in message:
        body = pad(signature("(uo)"), 8) + struct.pack("<I", 1 if job else 0) + text("/job" if job else "/")
        return reply(serial, "v", body)
    return reply(serial, "s", text(":1.1"))  # Hello


def exactly(stream, length):
    data = b""
    while len(data) < length:
        more = stream.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def line_of(stream):
    data = b""
    while not data.endswith(b"\r\n"):
        data += exactly(stream, 1)
    return data


def serve(stream):
    exactly(stream, 1)
    while not (line := line_of(stream)).startswith(b"BEGIN"):
        if line.startswith(b"AUTH"):
            stream.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
        else:
            stream.sendall(b"AGREE_UNIX_FD\r\n")
    while True:
        head = exactly(stream, 16)
        _, _, flags, _, body, serial, fields = struct.unpack("<cBBBIII", head)
        message = exactly(stream, fields + -fields % 8 + body)
        if not mute and not flags & 1:
            stream.sendall(answer(serial, message))


def bus():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(BUS)
    listener.listen()
    while True:
        stream, _ = listener.accept()
        try:
            serve(stream)
        except (EOFError, ConnectionError):
            stream.close()


for path in (NOTIFY, BUS):
    if os.path.exists(path):
        os.unlink(path)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(NOTIFY)
service = None
threading.Thread(target=bus, daemon=True).start()

try:
    commands = sys.stdin.fileno()
    left = b""
    while True:
        ready, _, _ = select.select([notify, commands], [], [])
        if notify in ready:
            messages(notify, None, 0.05)
        if commands in ready:
            more = os.read(commands, 4096)
            if not more:
                break
            left += more
            while b"\n" in left:
                line, left = left.split(b"\n", 1)
                do(*line.decode().split())
                print("done", flush=True)
finally:
    if service and service.poll() is None:
        service.kill()
        service.wait()
