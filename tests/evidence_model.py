"""Guest drivers as streams of events, for testing the policy ``evidence`` on them.

Written from ``drivers.md`` (sections 1 and 2) and ``peers.md`` alone: it shares nothing
with the policy's own table of drivers, and nothing with the simulated guests. There is
no ring and no wire here; what a driver does is told to the policy as the event that the
device would make of it, and :class:`World` keeps the books: what the numbers really
stand for, what was given back to the host, and what the guest lost.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field, replace

from balloon_plugin.events import (
    ActualWritten,
    Answer,
    ByteOrder,
    Defect,
    DeviceReset,
    DriverReady,
    FeaturesAcked,
    Gate,
    GuestDescribed,
    GuestFacts,
    Judgement,
    MemoryRange,
    PagesDeflated,
    PagesInflated,
    QueueSeen,
    TargetRead,
    TargetRequested,
    TimePassed,
)

BIG, LITTLE = ByteOrder.BIG, ByteOrder.LITTLE
GOOD, BUGGY = Judgement.GOOD, Judgement.BUGGY

# VIRTIO 1.3, by number, so that a slip in layouts.py would show
MUST_TELL_HOST = 1 << 0
DEFLATE_ON_OOM = 1 << 2
REPORTING = 1 << 5
INDIRECT = 1 << 28
VERSION_1 = 1 << 32

MIB, GIB = 1 << 20, 1 << 30


# --- drivers ------------------------------------------------------------------------


@dataclass(frozen=True)
class Driver:
    """What is special about one driver; the defaults are a right and current one."""

    name: str
    thread: bool = False  # a kthread (to 4.5), or else a work item
    looks_at_start: bool = True
    idle_writes: bool = False  # writes actual also if it had nothing to do
    raw_target: bool = False  # num_pages as the CPU has it
    raw_actual: bool = False
    writes_actual: bool = True
    numbers: str = "right"  # right, native, shifted, bare, slots, stale
    unit: str = "4K"  # 4K, guest
    leaps: bool = False  # counts pages of 4 KiB, moves as many of its own
    batch: int = 256
    all_or_nothing: bool = False
    aligns: bool = True  # rounds its target up to its page (6.7)
    unsigned: bool = False  # "return v - vb->num_pages" in u32
    frees_by_wire: bool = False
    compacts: bool = True  # 3.8 and later
    features: int = MUST_TELL_HOST | INDIRECT | VERSION_1
    orders: tuple[ByteOrder, ...] = (LITTLE, BIG)
    pages: tuple[int, ...] = (1, 2, 4, 16, 64)
    legacy: bool = True  # whether it works without VERSION_1


OLD = Driver(
    "",
    thread=True,
    aligns=False,
    compacts=False,
    features=MUST_TELL_HOST | INDIRECT,
)

LINUX_6_12 = Driver("6.12")
LINUX_5_8 = Driver("5.8", aligns=False)
LINUX_4_10 = Driver("4.10", aligns=False, idle_writes=True)
LINUX_4_7 = replace(LINUX_4_10, name="4.7", looks_at_start=False)
LINUX_3_4 = replace(OLD, name="3.4")
LINUX_3_8 = replace(LINUX_3_4, name="3.8", compacts=True)
FREEBSD = replace(OLD, name="freebsd", features=MUST_TELL_HOST, pages=(1,))
VIOMB = Driver(
    "viomb",
    looks_at_start=False,
    idle_writes=True,
    raw_actual=True,
    compacts=False,
    pages=(1,),
)
RIGHT = (LINUX_6_12, LINUX_5_8, LINUX_4_10, LINUX_4_7, LINUX_3_4, LINUX_3_8, FREEBSD)

LINUX_2_6_25 = replace(
    OLD,
    name="2.6.25",
    unsigned=True,
    numbers="bare",
    unit="guest",
    features=MUST_TELL_HOST,
    pages=(1, 4, 16),
)
LINUX_2_6_26 = replace(LINUX_2_6_25, name="2.6.26", raw_target=True)
LINUX_2_6_28 = replace(LINUX_2_6_26, name="2.6.28", unsigned=False)
LINUX_3_3 = replace(
    OLD,
    name="3.3",
    raw_target=True,
    numbers="shifted",
    unit="guest",
    frees_by_wire=True,
    pages=(1, 4, 16),
)
LINUX_3_19 = replace(
    LINUX_3_8,
    name="3.19",
    raw_target=True,
    raw_actual=True,
    numbers="native",
    features=MUST_TELL_HOST | INDIRECT | VERSION_1,
    orders=(BIG,),
    pages=(1, 16),
    legacy=False,
)
LINUX_4_4 = replace(LINUX_3_19, name="4.4", raw_target=False, raw_actual=False)
WINDOWS = Driver(
    "windows", numbers="slots", compacts=False, orders=(LITTLE,), pages=(1,)
)
NETBSD = replace(
    OLD,
    name="netbsd",
    numbers="stale",
    all_or_nothing=True,
    features=0,
    orders=(LITTLE,),
    pages=(1,),
)
MACOS = Driver(
    "macos",
    leaps=True,
    batch=4096,
    aligns=False,
    writes_actual=False,
    compacts=False,
    orders=(LITTLE,),
    pages=(4,),
    legacy=False,
)
WRONG = (
    LINUX_2_6_25,
    LINUX_2_6_26,
    LINUX_2_6_28,
    LINUX_3_3,
    LINUX_3_19,
    LINUX_4_4,
    VIOMB,
    WINDOWS,
    NETBSD,
    MACOS,
)
DRIVERS = (*RIGHT, *WRONG)


# --- guests -------------------------------------------------------------------------

LAYOUTS = {
    "low": ((0, 512 * MIB),),
    "arm": ((GIB, 512 * MIB),),
    "hole": ((0, GIB), (4 * GIB, GIB)),
    "huge": ((0, 64 * GIB),),
}
IN_USE = 16 * MIB
"""From the start of RAM, the kernel's own."""


STARVED = 128 * MIB // 4096
"""Pages at which a guest that was asked for none of them is taken for starved."""


def swap(value):
    return int.from_bytes(value.to_bytes(4, "little"), "big")


@dataclass(frozen=True)
class Case:
    """One guest, and what its host knows of it."""

    driver: Driver
    order: ByteOrder = LITTLE
    page: int = 1
    layout: str = "low"
    allocation: str = "down"  # up, down, scattered, alternate
    modern: bool = False
    first: tuple[int, ...] = ()  # frames that the first batches can get
    knows: str = ""  # what the host knows: nothing, "order", or "order, page"
    bytewise: bool = False  # every read of a byte is a read of the whole space
    late_features: bool = False
    aligned: bool = False  # its queues happen to lie on pages of 64 KiB
    seed: int = 0
    free: range | None = None  # the free frames themselves, in order

    def __str__(self):
        first = ".".join(map(str, self.first))
        bus = "modern" if self.modern else "legacy"
        return (
            f"{self.driver.name}-{self.order.value}-{self.page * 4}K-{bus}-"
            f"{self.layout}-{self.allocation}-{self.knows}-{first}"
        )

    @property
    def ram(self):
        return tuple(MemoryRange(*part) for part in LAYOUTS[self.layout])

    @property
    def facts(self):
        return GuestFacts(
            self.ram,
            self.order if "order" in self.knows else None,
            self.page * 4096 if "page" in self.knows else None,
        )

    @property
    def raw(self):
        """Whether what the driver does not swap is wrong: on a big-endian CPU."""
        return self.order is BIG

    @property
    def features(self):
        return self.driver.features & (~0 if self.modern else ~VERSION_1)

    @property
    def scale(self):
        """4 KiB pages in a unit of the driver's target."""
        return {"4K": 1, "guest": self.page}[self.driver.unit]

    @property
    def queues(self):
        """Where its queues lie: on pages of its own, as ``alloc_pages_exact`` does."""
        start = LAYOUTS[self.layout][0][0]
        size = max(self.page, 16) if self.aligned else self.page
        return tuple(start + place * size * 4096 for place in (1, 3))

    @property
    def swaps_target(self):
        return self.driver.raw_target and self.raw

    @property
    def form(self):
        """How its numbers come out on this CPU, with these pages."""
        form = self.driver.numbers
        if form == "native":
            return "swapped"
        return "right" if form in ("bare", "shifted") and self.page == 1 else form

    @property
    def frees_wrong(self):
        return self.driver.frees_by_wire and self.page > 1

    @property
    def defects(self):
        """What is wrong with it on this CPU, on this bus, with these pages."""
        driver = self.driver
        defects = {
            Defect.ENDIAN_TARGET: self.swaps_target,
            Defect.ACTUAL_ORDER: driver.raw_actual and self.raw,
            Defect.PFN_ORDER: self.form == "swapped",
            Defect.PAGE_SHIFT: self.form == "shifted",
            Defect.PAGE_UNITS: self.form == "bare",
            Defect.PFN_WIDTH: self.form == "slots",
            Defect.STALE_ENTRIES: self.form == "stale",
            Defect.UNIT_SCALE: driver.leaps,
            Defect.NO_ACTUAL: not driver.writes_actual,
            Defect.NO_DEFLATE: driver.unsigned,
        }
        return {defect for defect, there in defects.items() if there}

    @property
    def is_right(self):
        return not self.defects

    @property
    def is_ambiguous(self):
        """Whether another driver would send the same, and mean other pages by it.

        Up to 2.6.28 (which accept neither INDIRECT_DESC nor VERSION_1) numbers count
        guest pages, of 16 or 64 KiB if nothing else is known. A low number may then be
        any of the three, if the queues lie on such a page. Those that read their target
        right on a big-endian CPU do not deflate, and so tell themselves apart.
        """
        if "page" in self.knows or self.features & (INDIRECT | VERSION_1):
            return False
        if "order" in self.knows and self.order is BIG and not self.swaps_target:
            return False
        if self.form == "stale":
            return False
        numbers = self.encode(itertools.islice(self.frames(), 33))
        # 2.6.29 and .30 accept neither, too; their numbers are divided by the page's
        # size, so that each is there often unless pages lie far from each other.
        apart = self.allocation in ("scattered", "alternate")
        alone = apart and len(set(numbers)) == len(numbers)
        meant = [(1, 1), (4, 4), (16, 16), *(((4, 16), (16, 256)) if alone else ())]
        return sum(self._could_mean(numbers, *each) for each in meant) > 1

    def _could_mean(self, numbers, page, size):
        return all(desc % (page * 4096) == 0 for desc in self.queues) and all(
            any(
                part.start <= number * size * 4096 < part.start + part.size
                for part in self.ram
            )
            for number in numbers
        )

    def frames(self):
        """Yield the guest's free frames in the order of allocation."""
        size = self.page
        if self.free is not None:
            return iter(self.free)
        ranges = [
            range(part.start // 4096 // size, (part.start + part.size) // 4096 // size)
            for part in self.ram
        ]
        ranges[0] = ranges[0][IN_USE // 4096 // size :]
        if self.allocation == "up":
            return itertools.chain(*ranges)
        down = [part[::-1] for part in reversed(ranges)]
        if self.allocation == "down":
            return itertools.chain(*down)
        if self.allocation == "alternate":
            return itertools.chain(*(part[::2] for part in down))
        return self._scattered(ranges)

    def _scattered(self, ranges):
        dice, seen = random.Random(self.seed), set()  # noqa: S311 - simulated dice
        while True:
            part = dice.choices(ranges, [len(part) for part in ranges])[0]
            frame = dice.choice(part)
            if frame not in seen:
                seen.add(frame)
                yield frame

    def encode(self, frames):
        """Return the entries that stand for these frames in a buffer."""
        size = self.page
        shift = size.bit_length() - 1
        if self.form == "bare":
            return tuple(frames)
        if self.form == "shifted":
            return tuple(frame >> shift for frame in frames)
        entries = tuple(frame * size + i for frame in frames for i in range(size))
        if self.form == "swapped":
            return tuple(swap(entry) for entry in entries)
        if self.form == "slots":
            return tuple(itertools.chain.from_iterable((e, 0) for e in entries))
        return entries


# --- the device and the host around a policy ----------------------------------------


@dataclass
class World:
    """What the device does with a policy, and the books of what is true.

    :ivar harm: pages in use that the guest lost.
    :ivar peak: the most 4 KiB pages that were in the balloon.
    :ivar frames: guest frames in the balloon, the last one last.
    :ivar trace: every event, for people and for comparing two guests.
    """

    case: Case
    policy: object
    make_policy: object = None
    copies: bool = False  # save and load before every event
    requested: int = 0
    gate: Gate | None = None
    frames: list[int] = field(default_factory=list)
    reclaimed: set[int] = field(default_factory=set)
    harm: int = 0
    peak: int = 0
    now: float = 100.0
    ready: bool = False
    irq: bool = False
    trace: list[object] = field(default_factory=list)
    verdicts: list[object] = field(default_factory=list)
    peak_at_verdict: int = 0

    def __post_init__(self):
        self._free = self.case.frames()
        self._back = []
        self._first = list(self.case.first)
        self.buffer = (0,) * 256  # of a driver that always sends all of it
        self.placed = False
        self.limit = None  # frames that can still be had, None for no limit
        self.emit(GuestDescribed(self.case.facts))

    # --- the device ---

    def emit(self, event):
        if self.copies:
            self.copy()
        self.policy.policy_observe(event)
        self.trace.append(event)
        self._settle()

    def copy(self):
        """Save the policy, load it into a new one, and go on with that."""
        saved = json.loads(json.dumps(self.policy.policy_save()))
        before = self.policy.policy_gate(self.requested), self.policy.policy_verdict()
        self.policy = self.make_policy()
        self.policy.policy_observe(GuestDescribed(self.case.facts))
        self.policy.policy_load(saved)
        gate, verdict = (
            self.policy.policy_gate(self.requested),
            self.policy.policy_verdict(),
        )
        assert (replace(gate, nudges=0), verdict) == (
            replace(before[0], nudges=0),
            before[1],
        )

    def _settle(self):
        verdict = self.policy.policy_verdict()
        gate = self.policy.policy_gate(self.requested)
        assert 0 <= gate.num_pages < 1 << 32
        before, self.gate = self.gate, gate
        if not self.verdicts or verdict != self.verdicts[-1]:
            self.verdicts.append(verdict)
        was_deferred = before is not None and before.targets is Answer.DEFERRED
        if was_deferred and gate.targets is Answer.REFUSED:
            self.requested = 0
        if before is None or _power(gate) != _power(before):
            self.irq = self.ready

    @property
    def verdict(self):
        return self.verdicts[-1]

    def set_target(self, pages):
        if self.gate.targets is not Answer.REFUSED:
            self.requested = pages
            self.emit(TargetRequested(pages))
        if self.gate.targets is Answer.ACCEPTED:
            self.irq = self.ready
        return self.gate.targets

    def tick(self):
        self.now += 1
        self.emit(TimePassed(self.now))

    # --- what a driver does ---

    def look(self):
        """Read the target, byte by byte if that is how it is read."""
        case = self.case
        for _ in range(3 if case.bytewise else 0):
            self.emit(TargetRead(self.gate.num_pages))
        value = self.gate.num_pages
        self.emit(TargetRead(value))
        target = swap(value) if case.swaps_target else value
        if case.driver.aligns:
            target = -(-target // case.page) * case.page
        diff = target - self.units
        if case.frees_wrong:
            assert diff >= 0, "a driver that frees the wrong pages was told to deflate"
        return diff & 0xFFFFFFFF if case.driver.unsigned else diff

    @property
    def units(self):
        return len(self.frames) * self.units_per_frame

    @property
    def units_per_frame(self):
        return self.case.page if self.case.driver.unit == "4K" else 1

    @property
    def pages(self):
        return len(self.frames) * self.case.page

    def allocate(self, wanted):
        """Return frames for ``wanted`` units, or as many as there are."""
        driver = self.case.driver
        count = needed = -(-min(wanted, driver.batch) // self.units_per_frame)
        if self._first:
            count = min(count, self._first.pop(0))
        if self.limit is not None:
            count = min(count, self.limit)
        if driver.all_or_nothing and count < needed:
            return []
        if self.limit is not None:
            self.limit -= count
        again = [self._back.pop() for _ in range(min(count, len(self._back)))]
        return again + list(itertools.islice(self._free, count - len(again)))

    def inflate(self, frames):
        entries = self._sent(frames)
        self.frames += frames
        self.peak = max(self.peak, self.pages)
        assert self.pages < STARVED + self.requested, "the guest is starved"
        self.emit(PagesInflated(entries))
        if self.gate.reclaim:
            self._reclaim(entries, self._pages(frames))

    def _sent(self, frames):
        """Return the entries of a buffer; before the first, tell of the queues."""
        if not self.placed:
            self.placed = True
            for index, desc in enumerate(self.case.queues):
                self.emit(QueueSeen(index, desc))
        entries = self.case.encode(frames)
        if self.case.form != "stale":
            return entries
        self.buffer = entries + self.buffer[len(entries) :]
        return self.buffer

    def _reclaim(self, entries, true):
        pages = set(self._meant(entries))
        if pages != true:
            pages = {page for page in pages if self._in_ram(page)}
            self.harm += len(pages - true)
        assert not self.harm, "pages in use were given to the host"
        self.reclaimed |= pages

    def _meant(self, entries):
        """Return the pages that the device makes of entries, as the gate says."""
        how = self.gate.translation
        numbers = entries[: self.gate.entries : how.slot_entries]
        if how.swap_pfns:
            numbers = tuple(swap(number) for number in numbers)
        size = how.pages_per_pfn
        return [number * size + i for number in numbers for i in range(size)]

    def _in_ram(self, page):
        address = page * 4096
        return any(
            part.start <= address < part.start + part.size for part in self.case.ram
        )

    def _pages(self, frames):
        size = self.case.page
        return {frame * size + i for frame in frames for i in range(size)}

    def deflate(self, frames):
        if self.case.frees_wrong:
            self.harm += len(frames)
        entries = self._sent(frames)
        self.emit(PagesDeflated(entries))
        if self.case.form == "stale" and self.gate.targets is Answer.ACCEPTED:
            assert self.gate.entries == len(frames)
        self.reclaimed -= self._pages(frames)
        self._back += frames

    def write_actual(self, size=None):
        driver = self.case.driver
        if driver.writes_actual:
            value = (self.units if size is None else size) & 0xFFFFFFFF
            raw = driver.raw_actual and self.case.raw
            self.emit(ActualWritten(swap(value) if raw else value))


def _power(gate):
    return gate.num_pages, gate.reclaim, gate.targets, gate.nudges


# --- a driver's life ----------------------------------------------------------------


def live(world):
    """Yield wherever the driver can be interrupted: "step", "sleep" or "idle"."""
    case, driver = world.case, world.case.driver
    world.placed = False
    world.emit(DeviceReset())
    if not case.late_features:
        world.emit(FeaturesAcked(case.features))
    yield "step"
    if not driver.thread or case.late_features:
        yield from _ready(world)
    queued = driver.looks_at_start and (yield from _work(world))
    if not world.ready:
        yield from _ready(world)
    while True:
        if world.irq or queued:
            world.irq = False
            queued = yield from _work(world)
        else:
            yield "idle"


def _ready(world):
    world.ready = True
    if world.case.late_features:
        world.emit(FeaturesAcked(world.case.features))
    world.emit(DriverReady())
    yield "step"


def _work(world):
    """Read the target, do one batch, write ``actual``; return whether to go on."""
    driver = world.case.driver
    diff = world.look()
    yield "step"
    if driver.leaps:
        return (yield from _leap(world, diff))
    if not diff:
        if driver.idle_writes:
            world.write_actual()
        return False
    if diff > 0:
        frames = world.allocate(diff)
        if not frames or len(frames) * world.units_per_frame < min(diff, 256):
            yield "sleep"
        else:
            yield "step"
        if frames:
            world.inflate(frames)
    else:
        take_back(world, -diff)
    # Another thread may change the size between its reading and the writing of it.
    size = world.units
    yield "step"
    world.write_actual(size)
    yield "step"
    return True


def _leap(world, diff):
    """Move as many pages of 16 KiB as there are of 4 KiB to the target (macOS).

    Then it compares with the target that it read before, and gives back what it takes
    for surplus, if it had that many of its pages before.
    """
    before = len(world.frames)
    target = world.units + diff
    if diff > 0:
        frames = world.allocate(diff * world.units_per_frame)
        yield "step" if len(frames) == diff else "sleep"
        world.inflate(frames)
        yield "step"
    surplus = world.units - target
    if 0 < surplus <= before:
        world.deflate([world.frames.pop() for _ in range(surplus)])
        yield "step"
        return True
    return diff > 0


def take_back(world, units):
    """Give pages back, of the worker's accord or for the OOM notifier."""
    count = min(-(-min(units, 256) // world.units_per_frame), len(world.frames))
    frames = [world.frames.pop() for _ in range(count)]
    if frames:
        world.deflate(frames)


def compact(world):
    """Migrate one page of the balloon (3.8 and later); ``actual`` is not written."""
    if world.case.driver.compacts and world.frames:
        for frame in world.allocate(1):
            world.inflate([frame])
            world.deflate([world.frames.pop(0)])


def out_of_memory(world):
    """Run the OOM notifier (DEFLATE_ON_OOM): it gives back at most a batch."""
    take_back(world, 256)
    world.write_actual()


def poll_stats(world):
    """Poll statistics: a kthread reads its target again and writes ``actual``."""
    if world.case.driver.thread:
        world.irq |= bool(world.look())
        world.write_actual()


def settle(world, life, seconds=12):
    """Let the driver run until it idles, and time pass; about 12 s of patience."""
    for _ in range(seconds):
        naps = 0
        for _ in range(3000):
            if naps >= 5:
                break
            state = next(life)
            if state == "idle":
                break
            naps += state == "sleep"
        else:
            raise AssertionError("the driver never comes to rest")
        world.tick()


def run(case, make_policy, targets=(1000, 3000, 5, 0, 64), **options):
    """Boot a guest, ask for balloons, and return its world and whether all worked."""
    world = World(case, make_policy(), make_policy=make_policy, **options)
    life = live(world)
    settle(world, life)
    world.peak_at_verdict = world.peak
    reached = []
    for target in targets:
        world.set_target(target)
        settle(world, life, 3)
        reached.append((target, world.pages))
    return world, reached


def is_reached(case, target, pages):
    """Return whether a balloon of ``pages`` is what a target of ``target`` means."""
    return pages == -(-target // case.page) * case.page
