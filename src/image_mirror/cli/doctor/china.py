"""What is asked of the account in China, and which judgement gets which answers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from image_mirror.cli.doctor import functions, readings, stacks, table, triggers
from image_mirror.cli.doctor.asking import Asker, Question, SharedAccount, examine
from image_mirror.cli.doctor.findings import Finding
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.remedies import aws_of, log_of
from image_mirror.cli.stacks import Stack, china_stack
from image_mirror.record import Status
from image_mirror.review import Json

# Logical IDs of the template; those of the rules are what SAM makes of its events' names.
_API, _RECONCILER = "ApiFunction", "ReconcilerFunction"
_EVERY_MINUTE, _ECR_HINTS = "ReconcilerFunctionEveryMinute", "ReconcilerFunctionEcrHints"


class China:
    """China's side. All of it has been asked once this is made; `findings` waits for the answers."""

    def __init__(self, asker: Asker, account: SharedAccount, stack_name: str | None) -> None:
        """Ask what there is to ask of `account`, where the stack is."""
        self._account, self._aws, self._now = account, aws_of(account), datetime.now(UTC)
        ask = asker.ask
        self.stack = ask(stacks.CHINA_STACK, lambda: china_stack(account, stack_name))
        self._resources = ask(None, lambda: readings.resources(account, self._stack.name))
        self._table = ask(table.TABLE, lambda: readings.described_table(account, self._table_name))
        self._due = ask(table.DUE, self._read_due)
        self._statuses = ask(None, self._count_statuses)
        self._api = ask(functions.WEBHOOK, lambda: readings.function(account, self._named(_API)))
        self._reconciler = ask(functions.RECONCILER, lambda: readings.function(account, self._named(_RECONCILER)))
        self._policy = ask(None, lambda: readings.function_policy(account, self._named(_RECONCILER)))
        self._mappings = ask(triggers.STREAM, lambda: readings.mappings(account, self._named(_RECONCILER)))
        self._schedule = ask(triggers.SCHEDULE, lambda: readings.rule(account, self._named(_EVERY_MINUTE)))
        self._hints = ask(triggers.EVENTS, lambda: readings.rule(account, self._named(_ECR_HINTS)))
        self._metrics = ask(None, self._read_metrics)
        self._room = ask(functions.ROOM, lambda: readings.account_settings(account))
        self._letters = ask(triggers.LETTERS, lambda: readings.letters(account, self._queue))
        self._simulated = ask(functions.PERMISSIONS, self._simulate)

    def waiting(self) -> int:
        """Return how many of the records due next wait for a build; 0 where that is not known."""
        statuses = self._statuses.answer_or_none()
        return 0 if statuses is None else statuses[Status.REQUESTED]

    def stack_findings(self) -> Sequence[Finding]:
        """Return the findings about the stack."""
        topic = stacks.CHINA_STACK

        def judge(stack: Stack) -> Sequence[Finding]:
            return stacks.judge_stack(topic, stack, stacks.CHINA_OUTPUTS)

        return examine(topic, judge, self.stack, required=True)

    def findings(self) -> Iterator[Finding]:
        """Yield the findings about what runs there."""
        yield from examine(table.TABLE, lambda found: table.judge_table(self._table_name, found), self._table)
        yield from examine(table.DUE, self._judge_due, self._due)
        yield from examine(triggers.STREAM, self._judge_mapping, self._mappings, self._table)
        yield from examine(triggers.LAG, self._judge_lag, self._metrics)
        yield from self._rule_findings(triggers.SCHEDULE, self._schedule)
        yield from self._rule_findings(triggers.EVENTS, self._hints)
        yield from self._function_findings(functions.WEBHOOK, self._api, _API, "WebhookLogGroup")
        yield from self._function_findings(functions.RECONCILER, self._reconciler, _RECONCILER, "ReconcilerLogGroup")
        yield from examine(functions.ROOM, functions.judge_room, self._room)
        yield from examine(triggers.LETTERS, self._judge_letters, self._letters)
        yield from examine(functions.PERMISSIONS, functions.judge_permissions, self._simulated)

    @property
    def _stack(self) -> Stack:
        return self.stack.answer()

    @property
    def _table_name(self) -> str:
        return self._stack.output("ImageListTableName")

    @property
    def _queue(self) -> str:
        return self._stack.output("DeadLetterQueueUrl")

    @property
    def _reconciler_log(self) -> str:
        return log_of(self._stack, "ReconcilerLogGroup")

    def _named(self, logical_id: str) -> str:
        name = self._resources.answer().get(logical_id)
        if not name:
            raise NoAnswerError(f"the stack has no {logical_id}: it is another release's", "deploy it again")
        return name

    def _read_due(self) -> Sequence[tuple[str, str, int]]:
        return readings.due_next(self._account, self._table_name, self._milliseconds)

    def _count_statuses(self) -> Counter[str]:
        keys = [(repo, tag) for repo, tag, _ in self._due.answer()]
        return readings.statuses(self._account, self._table_name, keys)

    def _read_metrics(self) -> Mapping[tuple[str, str], Sequence[float]]:
        found = self._resources.answer()
        # Of those that there are: one that is missing is not to hide how the other does.
        names = [name for each in (_API, _RECONCILER) if (name := found.get(each))]
        return readings.metrics(self._account, names, self._now) if names else {}

    def _simulate(self) -> Mapping[str, Sequence[Json]]:
        registry, _, prefix = self._stack.output("CopiesPrefix").partition("/")
        number, region = registry.partition(".")[0], self._account.region
        below = f"arn:aws-cn:ecr:{region}:{number}:repository/{prefix}image-mirror-doctor"
        actions = functions.creating(self._stack.parameter("ExpireDays"), self._stack.parameter("PullAccounts"))
        user = self._stack.output("ImagePushUserName")
        asked: dict[str, tuple[str, Sequence[str]]] = {
            user: (f"arn:aws-cn:iam::{number}:user/{user}", functions.PUSHING)
        }
        if found := self._reconciler.answer():
            asked["the reconciler's role"] = (found["Configuration"]["Role"], actions)
        return {who: readings.simulated(self._account, *what, below) for who, what in asked.items()}

    def _judge_due(self, due: Sequence[tuple[str, str, int]]) -> Sequence[Finding]:
        named = [(f"{repo}:{tag}", due_at) for repo, tag, due_at in due]
        return table.judge_due(named, self._statuses.answer_or_none(), self._milliseconds, self._reconciler_log)

    def _judge_mapping(self, mappings: Sequence[Json], described: Json | None) -> Sequence[Finding]:
        stream = described.get("LatestStreamArn") if described else None
        return triggers.judge_mapping(mappings, stream, self._aws, self._reconciler_log)

    def _judge_lag(self, metrics: Mapping[tuple[str, str], Sequence[float]]) -> Sequence[Finding]:
        return triggers.judge_lag(metrics.get((self._named(_RECONCILER), "IteratorAge"), ()))

    def _judge_letters(self, attributes: Json | None) -> Sequence[Finding]:
        return triggers.judge_letters(attributes, self._queue, self._aws, self._reconciler_log)

    def _rule_findings(self, topic: str, rule: Question[tuple[Json | None, Sequence[Json]]]) -> Sequence[Finding]:
        def judge(found: tuple[Json | None, Sequence[Json]], policy: Json, called: Json | None) -> Sequence[Finding]:
            pattern = triggers.ecr_pattern(self._stack.parameter("RepositoryPrefix"))
            wanted = triggers.RATE if topic == triggers.SCHEDULE else pattern
            arn = called["Configuration"]["FunctionArn"] if called else ""
            return triggers.judge_rule(topic, *found, arn, policy, wanted, self._aws)

        return examine(topic, judge, rule, self._policy, self._reconciler)

    def _function_findings(
        self, topic: str, function: Question[Json | None], logical_id: str, output: str
    ) -> Iterator[Finding]:
        def judge_runs(metrics: Mapping[tuple[str, str], Sequence[float]]) -> Sequence[Finding]:
            name = self._named(logical_id)
            sums = {metric: sum(values) for (of, metric), values in metrics.items() if of == name}
            return functions.judge_runs(topic, sums, log_of(self._stack, output))

        yield from examine(topic, lambda found: functions.judge_function(topic, found, self._aws), function)
        yield from examine(topic, judge_runs, self._metrics)

    @property
    def _milliseconds(self) -> int:
        return int(self._now.timestamp() * 1000)
