"""What every report says, whatever was found: what verdicts mean, what no ledger proves, and the words used."""

from __future__ import annotations

from typing import Final

FAILED: Final = (
    "What the ledger serves contradicts what it has signed, or what it has promised. The registers named "
    "below as failed are not to be relied on until that is explained. Keep the state directory and the "
    "exhibits as they are. A failure shows that something is wrong with the ledger; it does not show who "
    "is to blame."
)
INCOMPLETE: Final = (
    "Nothing wrong was found in what was read. Some of it could not be read, and of that nothing is said. "
    "Run the audit again; if it stays so, ask the operator why."
)
INTACT: Final = (
    "Everything that was read is what the ledger has signed, entry by entry, and fits everything that this "
    "auditor had kept. Records that were registered have not been changed, put in a different order or "
    "taken out since they were first seen, as far as this audit can tell. The limits of that are named "
    "below."
)
INTACT_AT_FIRST: Final = (
    "Everything that was read is what the ledger has signed, entry by entry, and holds together. From now "
    "on this auditor can tell whether any of it is changed, put in a different order or taken out. Whether "
    "that happened before this first visit, the part on what cannot be claimed says."
)

LIMITS: Final = (
    "A ledger proves only that what was registered was not changed or dropped afterwards. It cannot prove "
    "that everything was registered that should have been, nor that what a record says is true.",
    "A policy profile is a choice of limits, and no law. No statute sets a number of days for recording a "
    "decision. “Late” means late by the profile named below.",
    "A finding is no accusation. It is a fact that somebody should look at, with its numbers and with "
    "innocent causes that are known.",
    "Times are those of the witnesses' clocks: when an entry came into the history that they have seen. "
    "When a decision was made is what the department says.",
    "This report is a rendering of one audit, and no evidence by itself: whoever has the file can change "
    "it. The exhibits and the state directory are the evidence; every proof in them can be checked anew.",
)
"""What no report of an audit shows."""

GLOSSARY: Final = (
    (
        "Register",
        "A list of entries to which one may only add. Each office of a department has one of its own.",
    ),
    ("Governing register", "The register that names all others, the keys that may sign, and the policies."),
    (
        "Entry",
        "One record in a register, with its place (index, counted from 0) and the signature it came with.",
    ),
    ("Checkpoint", "A signed statement by the ledger: so many entries, and the root that they come to."),
    ("Root", "A short number that is computed from all entries; if one of them changes, it changes."),
    (
        "Witness",
        "A body independent of the ledger that signs the checkpoints it has seen, with its own clock's time.",
    ),
    ("Sealed", "Cosigned by as many witnesses as the policy file asks for."),
    ("Anchored", "Its checkpoint stands in the governing register too, so that both would have to be changed."),
    ("Policy file", "The auditor's own list of the keys and witnesses that are trusted."),
    (
        "Return",
        "A department's statement of how many decisions an office has made in a period, and which numbers.",
    ),
    ("Exhibit", "An entry that a finding names, with its hash: packed with its proofs it can be verified."),
    ("Evidence", "A file that keeps what a finding rests on, in the folder “evidence” of the auditor's state."),
)
"""The words that a reader meets."""
