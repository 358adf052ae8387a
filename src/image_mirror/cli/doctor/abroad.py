"""What is asked of the global account, and which judgement gets which answers."""

from collections.abc import Callable, Iterator, Sequence

from image_mirror.cli.doctor import project, readings, stacks
from image_mirror.cli.doctor.asking import Asker, Question, SharedAccount, examine
from image_mirror.cli.doctor.findings import Finding
from image_mirror.cli.remedies import aws_of
from image_mirror.cli.stacks import Stack, global_stack
from image_mirror.review import Json


class Abroad:
    """The global side. All of it has been asked once this is made; `findings` waits for the answers."""

    def __init__(self, asker: Asker, account: SharedAccount, stack_name: str) -> None:
        """Ask what there is to ask of `account`, where the stack is."""
        self._account = account
        ask = asker.ask
        self.stack = ask(stacks.GLOBAL_STACK, lambda: global_stack(account, stack_name))
        self._project = ask(project.PROJECT, lambda: readings.project(account, self._project_name))
        self._builds = ask(project.BUILDS, lambda: readings.latest_builds(account, self._project_name))
        self._quota = ask(project.QUOTA, lambda: readings.build_quota(account))

    def stack_findings(self) -> Sequence[Finding]:
        """Return the findings about the stack."""
        topic = stacks.GLOBAL_STACK

        def judge(stack: Stack) -> Sequence[Finding]:
            return stacks.judge_stack(topic, stack, stacks.GLOBAL_OUTPUTS)

        return examine(topic, judge, self.stack, required=True)

    def findings(self, china: Question[Stack], waiting: Callable[[], int]) -> Iterator[Finding]:
        """Yield the findings about what copies. `waiting` returns how many records wait for a build."""

        def judge_project(found: Json | None, at_home: Stack) -> Sequence[Finding]:
            registry, _, prefix = at_home.output("CopiesPrefix").rstrip("/").partition("/")
            return project.judge_project(self._project_name, found, registry, prefix)

        def judge_quota(value: float | None) -> Sequence[Finding]:
            queued = project.queued(self._builds.answer_or_none() or ())
            return project.judge_quota(value, queued + waiting(), aws_of(self._account))

        yield from examine(project.PROJECT, judge_project, self._project, china)
        yield from examine(project.BUILDS, project.judge_builds, self._builds)
        yield from examine(project.QUOTA, judge_quota, self._quota)

    @property
    def _project_name(self) -> str:
        return self.stack.answer().output("ProjectName")
