"""What is asked of the cluster, where one is given, and which judgement gets which answers."""

from collections.abc import Iterator, Sequence

from image_mirror.cli.doctor import configuration
from image_mirror.cli.doctor.applying import apply_of
from image_mirror.cli.doctor.asking import Asker, Question, examine
from image_mirror.cli.doctor.findings import Finding
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.stacks import Stack
from image_mirror.cli.webhook_manifest import shipped_configuration
from image_mirror.review import Json


class Asked:
    """One cluster. All of it has been asked once this is made; `findings` waits for the answers."""

    def __init__(self, asker: Asker, cluster: Cluster) -> None:
        """Ask for its version and its webhook configurations."""
        self._cluster = cluster
        self._version = asker.ask(configuration.VERSION, cluster.version)
        self._configurations = asker.ask(
            configuration.CONFIGURATION, lambda: cluster.get("mutatingwebhookconfigurations")["items"]
        )

    def findings(self, china: Question[Stack]) -> Iterator[Finding]:
        """Yield the findings about the cluster, by the URL of China's stack."""

        def judge(found: Sequence[Json], stack: Stack) -> Sequence[Finding]:
            shipped = shipped_configuration(stack.output("APIGatewayURL"))
            return configuration.judge_configurations(found, shipped, apply_of(stack, self._cluster))

        yield from examine(configuration.VERSION, configuration.judge_version, self._version, required=True)
        yield from examine(configuration.CONFIGURATION, judge, self._configurations, china)
