"""DET-05 and DET-06: decisions in non-corporate channels, and messages that were set to disappear."""

from __future__ import annotations

from services.auditing.detections.rules import Case, Terms
from services.auditing.found import Found, Severity


def nccc_origin(terms: Terms, case: Case) -> Found | None:
    """DET-05: made in a channel that the profile lists; it weighs more by how it was recorded."""
    rule, record = terms.profile.detections.nccc_origin, case.record
    if rule is None or record.channel not in rule.channels:
        return None
    weighs = []
    if record.device == "privately_owned" and record.significant:
        weighs.append("a significant decision on a privately owned device")
    justified = record.channel_justification is not None or (
        record.withheld is not None and "channel_justification" in record.withheld
    )
    if rule.justification_expected and not justified:
        weighs.append("no justification of the channel")
    if record.capture_method in (rule.weak_capture_methods or ()):
        weighs.append(f"capture only by {record.capture_method}")
    severity = (Severity.LOW, Severity.MEDIUM, Severity.HIGH)[min(len(weighs), 2)]
    inputs = {
        "channel": record.channel,
        "device": record.device,
        "capture_method": record.capture_method,
        "significant": {True: "yes", False: "no", None: "not stated"}[record.significant],
        "justification": "stated or withheld" if justified else "none",
        "escalations": len(weighs),
    }
    noted = f" Noted with it: {'; '.join(weighs)}." if weighs else ""
    return terms.found(
        "DET-05",
        severity,
        case.register,
        (case.index,),
        inputs,
        f"The decision was made over {record.channel}, which is not a corporate channel.{noted}",
    )


def disappearing_on(terms: Terms, case: Case) -> Found | None:
    """DET-06: the record states that disappearing messages were in a state that the profile lists."""
    rule, record = terms.profile.detections.disappearing_on, case.record
    if rule is None or record.disappearing_messages is None or record.disappearing_messages not in rule.states:
        return None
    return terms.found(
        "DET-06",
        Severity.MEDIUM,
        case.register,
        (case.index,),
        {"disappearing_messages": record.disappearing_messages, "channel": record.channel},
        f"The record states disappearing messages: {record.disappearing_messages}, over "
        f"{record.channel}. Messages "
        "of that time may not exist any more.",
    )
