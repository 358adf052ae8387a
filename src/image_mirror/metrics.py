"""The functions' metrics, as CloudWatch has them. Pure."""

from enum import Enum


class Metric(Enum):
    """A metric: its name and unit in CloudWatch, and what one value means. docs/monitoring.md has this table."""

    ADMISSIONS = ("Admissions", "Count", "reviews answered 200, with a patch or without; dry runs too")
    REWRITES = ("Rewrites", "Count", "images that these answers changed to ECR")
    NOT_RECORDED = (
        "NotRecorded",
        "Count",
        "reviews answered 503 because the table did not take a record in time; the API server asks again. During "
        "a pause: new pods that start as written because the table did not answer",
    )
    REFUSED = (
        "Refused",
        "Count",
        "requests with the right token answered 400 because they were not an AdmissionReview",
    )
    BUGS = (
        "Bugs",
        "Count",
        "reviews answered 503 because the webhook or its settings are wrong; its log has the stack",
    )
    COPIES_REQUESTED = (
        "CopiesRequested",
        "Count",
        "copies requested, by the table's stream: new ones, refreshes, and failed ones requested again",
    )
    BUILDS_STARTED = ("BuildsStarted", "Count", "copies that went from REQUESTED to COPYING, in either lane")
    FAST_BUILDS_STARTED = ("FastBuildsStarted", "Count", "of these, the copies in the fast lane")
    SENT_TO_MAIN = (
        "SentToMain",
        "Count",
        "copies that continue in the main lane because the fast lane was too slow or too small for them, failed, or "
        "took no build",
    )
    COPIES_ARRIVED = (
        "CopiesArrived",
        "Count",
        "copies that became COPIED because ECR holds them: first ones and refreshes",
    )
    COPIES_FAILED = ("CopiesFailed", "Count", "copies that became FAILED")
    COPIES_GONE = ("CopiesGone", "Count", "copies whose record was removed because ECR no longer holds them")
    COPIES_EXPIRED = (
        "CopiesExpired",
        "Count",
        "copies whose record was removed because nobody had used them for `ExpireDays`",
    )
    UNEXPECTED_PUSHES = (
        "UnexpectedPushes",
        "Count",
        "pushes that changed a copy and that none of our builds made; each is counted once",
    )
    ATTEMPTS_REFUSED = (
        "AttemptsRefused",
        "Count",
        "builds that cost an attempt: the source refused, or the build ended without a copy",
    )
    WAITS = ("Waits", "Count", "delays of a copy that cost no attempt, for other reasons than `Busy` and `KeyRefused`")
    BUSY = (
        "Busy",
        "Count",
        "times that a copy was delayed because AWS had no capacity: a full queue, throttling, an STS that does not "
        "answer",
    )
    KEY_REFUSED = (
        "KeyRefused",
        "Count",
        "delays of a copy because the secret with a key is missing or wrong, because AWS refused the key, or, if the "
        "accounts federate, because an exchange fails until somebody changes something; also each minute in which "
        "copies wait for a key",
    )
    STEP_ERRORS = (
        "StepErrors",
        "Count",
        "records whose step ended in an exception; the log has its stack, and they stay due",
    )
    RECORDS_REPAIRED = (
        "RecordsRepaired",
        "Count",
        "records written again because somebody had changed them by hand, or because a write failed although nothing "
        "had changed",
    )
    RECORDS_UNUSABLE = (
        "RecordsUnusable",
        "Count",
        "images that the webhook left unchanged because the table refused each write of their record",
    )
    TIME_TO_COPIED = (
        "TimeToCopied",
        "Milliseconds",
        "from a copy's request to COPIED, for copies that arrived for the first time without having failed",
    )
    OLDEST_DUE = (
        "OldestDue",
        "Seconds",
        "each minute, how long the oldest due record has been due, without those that wait for a build; 0 if there is "
        "none",
    )
    OLDEST_FIRST_COPY = (
        "OldestFirstCopy",
        "Seconds",
        "each minute, how long ago the oldest request was made whose copy has never arrived; 0 if there is none",
    )
    DUE = ("Due", "Count", "each minute, the records found due; if the time limit was reached, there are more")

    def __init__(self, label: str, unit: str, meaning: str) -> None:
        """Store the parts of the member's value."""
        self.label = label
        self.unit = unit
        self.meaning = meaning
