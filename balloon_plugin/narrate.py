"""Events as sentences, for logs, traces and people who look on."""

from __future__ import annotations

from balloon_plugin import events
from balloon_plugin.events import Event, Gate, Translation, Verdict

__all__ = ["difference", "is_news", "sentence"]

_NEWS = (
    events.DeviceReset,
    events.GuestFault,
    events.InhibitionChanged,
    events.PluginFailed,
    events.PolicyChanged,
    events.ShadowDiverged,
    events.ShadowGuesses,
    events.StateLoaded,
    events.TargetAnswered,
    events.VerdictChanged,
)


def is_news(event: Event) -> bool:
    """Return whether an operator wants to know of an event: a verdict, a fault."""
    return isinstance(event, _NEWS)


def sentence(event: Event) -> str:  # noqa: C901, PLR0911, PLR0912 - one line for each
    """Return one line that says what happened; pages are 4 KiB pages."""
    match event:
        case events.GuestDescribed(facts):
            order = facts.byte_order.value if facts.byte_order else "unknown"
            page = f"{facts.page_size} bytes" if facts.page_size else "unknown"
            return f"guest of {facts.ram_pages} pages, {order}-endian, page size {page}"
        case events.FeaturesAcked(features):
            return f"driver accepts features {features:#x}"
        case events.DriverReady():
            return "driver is ready"
        case events.QueueSeen(index, desc):
            return f"driver has queue {index} at {desc:#x}"
        case events.TargetRead(num_pages):
            return f"driver reads target {num_pages}"
        case events.ActualWritten(actual):
            return f"driver writes actual {actual}"
        case events.PagesInflated(pfns):
            return f"driver inflates {_numbers(pfns)}"
        case events.PagesDeflated(pfns):
            return f"driver deflates {_numbers(pfns)}"
        case events.StatsReceived(stats):
            return f"driver sends {len(stats)} statistics"
        case events.DeviceReset():
            return "device is reset: a new driver session begins"
        case events.TargetRequested(num_pages):
            return f"user asks for {num_pages} pages"
        case events.TimePassed(now):
            return f"time is {now:.3f} s"
        case events.GuestFault(what, queue):
            where = "" if queue is None else f" in queue {queue}"
            return f"driver at fault{where}: {what}"
        case events.GateChanged(gate):
            return _gate(gate)
        case events.VerdictChanged(verdict):
            return _verdict(verdict)
        case events.PagesReclaimed(num_pages, runs):
            return f"{num_pages} pages reclaimed in {len(runs)} runs"
        case events.PagesReported(num_pages, runs):
            pages = sum(count for _, count in runs)
            return f"driver reports {pages} free pages, {num_pages} given back"
        case events.PagesHinted(command, runs):
            pages = sum(count for _, count in runs)
            return f"driver hints at {pages} free pages for command {command}"
        case events.InhibitionChanged(None):
            return "discards are allowed again"
        case events.InhibitionChanged(reason):
            return f"discards are inhibited: {reason}"
        case events.TargetAnswered(reply, asked):
            target = reply.requested if asked is None else asked
            why = f" ({reply.reason})" if reply.reason else ""
            return f"target of {target} pages is {reply.answer.value}{why}"
        case events.StateLoaded(known):
            return f"state loaded, verdict {'known' if known else 'not known'}"
        case events.PolicyChanged(policy, held):
            how = ", over a balloon that is held" if held else ""
            return f"policy {policy} judges from now on{how}"
        case events.PluginFailed(plugin, hook, error):
            return f"{plugin} failed in {hook}: {' '.join(error.split())}"
        case events.ShadowDiverged(policy, at, gate, live):
            return f"shadow {policy}, from event {at} on: {difference(gate, live)}"
        case events.ShadowGuesses(policy, at, why):
            return f"shadow {policy} only guesses from event {at} on: {why}"


def _numbers(pfns: tuple[int, ...]) -> str:
    most = 4
    shown = " ".join(f"{pfn:#x}" for pfn in pfns[:most])
    return f"{len(pfns)} entries: {shown}{' ...' if len(pfns) > most else ''}"


def _gate(gate: Gate) -> str:
    reclaim = "reclaims" if gate.reclaim else "does not reclaim"
    return f"gate: shows {gate.num_pages}, {reclaim}, targets {gate.targets.value}"


def difference(gate: Gate, live: Gate) -> str:
    """Say what a shadow would do otherwise than the policy that has the power."""
    return (
        ", ".join(f"would {act}" for act in _acts(gate) if act not in _acts(live))
        or "would do the same"
    )


def _acts(gate: Gate) -> tuple[str, ...]:
    how = "" if gate.translation == Translation() else ", translated"
    reclaim = "reclaim" if gate.reclaim else "reclaim nothing"
    return (
        f"show {gate.num_pages}",
        f"{reclaim}{how}",
        f"have targets {gate.targets.value}",
    )


def _verdict(verdict: Verdict) -> str:
    defects = ", ".join(defect.value for defect in verdict.defects)
    why = f": {verdict.evidence[-1].shows}" if verdict.evidence else ""
    return (
        f"verdict {verdict.judgement.value} ({verdict.state})"
        f"{f', driver {defects}' if defects else ''}{why}"
    )
