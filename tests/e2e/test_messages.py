"""Messages that are none, to every socket of a running pipeline: counted, answered or dropped; no
frame changes, no process dies, no memory grows."""

import os
import random
import resource
import socket
import struct
import time

from harness import Pipeline, check, hashes, start, status, wait_for
from faults import STAGES
from test_matrix import BLOCKS, armed, script

BELL = b"\x83\xa1v\x01\xa1t\xa4bell\xa4from\x01"
PROMPT = b"\x84\xa1v\x01\xa1t\xa6prompt\xa7request\x07\xa4text\xa5a fox"
KEEPER_BYTES = 136


def bodies(rng):
    """Bodies for a socket that takes messages, by what is wrong with them."""
    bits = bytearray(BELL)
    bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
    return {
        "doubled": BELL,
        "truncated": BELL[:rng.randrange(1, len(BELL))],
        "bit-flipped": bytes(bits),
        "random": rng.randbytes(rng.randrange(1, 200)),
        "large": rng.randbytes(60000),
        "another version": BELL.replace(b"v\x01", b"v\x02"),
        "another type": BELL.replace(b"bell", b"ball"),
        "trailing": BELL + b"\x00",
        "array of 2^28": b"\xdd\x10\x00\x00\x00",
        "map of 2^26": b"\xdf\x04\x00\x00\x00",
        "text of 4 GB": b"\xdb\xff\xff\xff\xff",
        "1,000 deep": b"\x91" * 1000 + b"\x01",
        "31 arrays of 2^28": b"\xdd\x10\x00\x00\x00" * 31,
        "a key twice": b"\x84\xa1v\x01\xa1v\x01\xa1t\xa4bell\xa4from\x01",
        "not UTF-8": PROMPT.replace(b"a fox", b"a\xff\xfeox"),
    }


def connect(path, kind=socket.SOCK_STREAM):
    """A full queue of the other side (EAGAIN) is waited for."""
    end = time.monotonic() + 10
    s = socket.socket(socket.AF_UNIX, kind)
    s.setblocking(False)
    while True:
        try:
            s.connect(path)
            break
        except BlockingIOError:
            check(time.monotonic() < end, path, "takes nobody")
            time.sleep(0.001)
    s.settimeout(5)
    return s


class Zmtp:
    """A ZeroMQ peer by hand (ZMTP 3.0, NULL): what a library would not send can be sent."""

    def __init__(self, path, kind):
        self.s = connect(path)
        self.s.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32)
        self.take(64)
        prop = b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
        ready = b"\x05READY" + prop
        self.s.sendall(bytes([4, len(ready)]) + ready)
        flags, n = self.take(2)
        self.take(n)

    def take(self, n):
        data = b""
        while len(data) < n:
            more = self.s.recv(n - len(data))
            check(more, "the peer hung up")
            data += more
        return data

    def send(self, body, more=0):
        if len(body) < 256:
            self.s.sendall(bytes([more, len(body)]) + body)
        else:
            self.s.sendall(bytes([more | 2]) + struct.pack(">Q", len(body)) + body)

    def close(self):
        self.s.close()


def rss_kib(run_dir):
    found = {}
    for q in status(run_dir)["processes"]:
        with open("/proc/%d/status" % q["pid"]) as f:
            found[q["name"]] = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    return found


def pids(run_dir):
    return {q["name"]: q["pid"] for q in status(run_dir)["processes"]}


def dropped(run_dir):
    s = status(run_dir)
    n = {q["name"]: q["messages_dropped"] for q in s["processes"] if q["name"] in STAGES}
    n["requests"] = s["counters"]["requests_refused"]
    n["control"] = s["control_refused"]
    return n


def shuffled(rng):
    """Every wrong body, and whether it is none of our messages whatever the dice say."""
    sent = [(body, what in ("truncated", "large", "another version", "trailing", "1,000 deep"))
            for what, body in bodies(rng).items()]
    rng.shuffle(sent)
    return sent


def wreck_bells(run_dir, rng, n_rounds):
    """Every wrong body to every bell; returns how many were sent, and how many are none."""
    n, n_bad = 0, 0
    for name in STAGES:
        for _ in range(n_rounds):
            s = connect(os.path.join(run_dir, "bell." + name), socket.SOCK_DGRAM)
            for body, is_bad in shuffled(rng) + [(b"", True), (bytes(150000), True)]:
                s.send(body)  # waits while the queue is full
                n += 1
                n_bad += is_bad
            s.close()
    return n, n_bad


def wreck_requests(run_dir, rng, n_rounds):
    """Every wrong body to the gateway; returns how many were sent, and how many are none."""
    n, n_bad = 0, 0
    for _ in range(n_rounds):
        z = Zmtp(os.path.join(run_dir, "gateway.ctl"), b"DEALER")
        for body, is_bad in shuffled(rng):
            z.send(body)
            n += 1
            n_bad += is_bad
        z.send(BELL, more=1)  # a first part without a last
        try:
            z.s.sendall(b"\x02" + struct.pack(">Q", 1 << 30) + b"x")  # 1 GB is announced
        except OSError:
            pass  # it has hung up: over the limit
        z.close()
    return n, n_bad


def wreck_keeper(run_dir, rng, n_rounds):
    n = 0
    for _ in range(n_rounds):
        for size in (0, 1, KEEPER_BYTES - 1, KEEPER_BYTES, KEEPER_BYTES + 1, 4096):
            s = connect(os.path.join(run_dir, "keeper.sock"), socket.SOCK_SEQPACKET)
            try:
                for _ in range(3):
                    s.send(rng.randbytes(size))
                    n += 1
            except OSError:
                pass
            s.close()
    return n


def wreck_control(run_dir, rng, n_rounds):
    n = 0
    for _ in range(n_rounds):
        for line in (b"", b"\n", b"status\0\n", rng.randbytes(100) + b"\n", b"x" * 5000,
                     b"restart nobody now\n", b"sta"):
            s = connect(os.path.join(run_dir, "super.sock"))
            try:
                s.sendall(line)
            except OSError:
                pass
            s.close()
            n += 1
    return n


def job(tmp, p, name):
    return start(["generate", "--run", p.run_dir, "--quiet", "--hashes",
                  os.path.join(tmp, name + ".sha256"), "-o", os.path.join(tmp, name + ".y4m"),
                  "--script", script(tmp), "--blocks", BLOCKS])


def wreck_a_job(tmp, p, rng, want):
    """A job under wrong messages to every socket; how many were sent, and how many must count."""
    n_sent = n_bad = 0
    j = job(tmp, p, "wrong")
    while j.poll() is None:
        n, bad = (sum(x) for x in zip(wreck_bells(p.run_dir, rng, 1),
                                      wreck_requests(p.run_dir, rng, 1)))
        n_control = wreck_control(p.run_dir, rng, 1)
        n_sent += n + wreck_keeper(p.run_dir, rng, 1) + n_control
        n_bad += bad + n_control
    check(j.returncode == 0, "the job ended with", j.returncode, j.stderr.read())
    check(hashes(os.path.join(tmp, "wrong.sha256")) == want, "other frames")
    return n_sent, n_bad


def test_wrong_messages(tmp, n_jobs=3):
    rng = random.Random(7)
    with Pipeline(tmp, *armed()) as p:
        want = p.generate(tmp, "calm", "--script", script(tmp), "--blocks", BLOCKS)
        before, at_work = dropped(p.run_dir), pids(p.run_dir)
        sent = [wreck_a_job(tmp, p, rng, want) for _ in range(2)]
        memory = rss_kib(p.run_dir)  # with queues that have been full once
        sent += [wreck_a_job(tmp, p, rng, want) for _ in range(n_jobs)]
        n_sent, n_bad = (sum(column) for column in zip(*sent))

        def counted():
            return {k: v - before[k] for k, v in dropped(p.run_dir).items()}

        wait_for("every one counted", 10, lambda: sum(counted().values()) >= n_bad)
        check(min(counted().values()) > 0, counted())
        check(pids(p.run_dir) == at_work, "a process was replaced")
        with open(os.path.join(p.run_dir, "log", "keeper.log")) as f:
            check("ev=refused" in f.read(), "the keeper has refused nothing")
        grown = {k: v - memory[k] for k, v in rss_kib(p.run_dir).items()}
        check(max(grown.values()) < 8192, "memory in KiB:", grown)
        print("  %d wrong messages in %d jobs, %d of all but the keeper's counted; memory grew by at most %d KiB"
              % (n_sent, len(sent), sum(counted().values()), max(grown.values())), flush=True)


def test_many_wrong_messages(tmp):
    test_wrong_messages(tmp, n_jobs=20)


def test_no_bell_arrives(tmp):
    """Stages whose bells nobody can reach find their work in the ledger."""
    with Pipeline(tmp, *armed()) as p:
        args = ["--script", script(tmp), "--blocks", BLOCKS]
        want = p.generate(tmp, "calm", *args)
        for s in STAGES:
            os.unlink(os.path.join(p.run_dir, "bell." + s))
        at_work = pids(p.run_dir)
        check(p.generate(tmp, "silent", *args) == want, "other frames")
        check(pids(p.run_dir) == at_work, "a process was replaced")


def test_two_thousand_connections(tmp):
    """To each socket, all held open while a job runs."""
    n = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = n + 200
    check(hard >= room, "ulimit -n is", hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, room), hard))
    with Pipeline(tmp, *armed()) as p:
        want = p.generate(tmp, "calm", "--script", script(tmp), "--blocks", BLOCKS)
        at_work = pids(p.run_dir)
        for name in ["bell." + s for s in STAGES] + ["gateway.ctl", "keeper.sock", "super.sock"]:
            kind = (socket.SOCK_SEQPACKET if name == "keeper.sock" else
                    socket.SOCK_DGRAM if name.startswith("bell.") else socket.SOCK_STREAM)
            held = []
            for _ in range(n):
                s = socket.socket(socket.AF_UNIX, kind)
                s.settimeout(5)
                held.append(s)
                try:
                    s.connect(os.path.join(p.run_dir, name))
                except OSError:
                    time.sleep(0.001)  # the queue of the socket is full
            j = job(tmp, p, "crowd")
            check(j.wait(60) == 0, name, "the job ended with", j.returncode, j.stderr.read())
            check(hashes(os.path.join(tmp, "crowd.sha256")) == want, name, "other frames")
            for s in held:
                s.close()
        wait_for("an answer", 10, lambda: pids(p.run_dir) == at_work)


TESTS = [test_wrong_messages, test_no_bell_arrives]
FULL = [test_many_wrong_messages, test_two_thousand_connections]
