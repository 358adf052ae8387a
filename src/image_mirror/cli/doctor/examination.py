"""The whole examination: everything is asked at once, then judged, in the order in which things are mended."""

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from image_mirror.cli.doctor import key_readings, stacks, webhook
from image_mirror.cli.doctor.abroad import Abroad
from image_mirror.cli.doctor.asking import Asker, SharedAccount, examine
from image_mirror.cli.doctor.china import China
from image_mirror.cli.doctor.cluster import Asked
from image_mirror.cli.doctor.credentials import Credentials, End
from image_mirror.cli.doctor.findings import Finding
from image_mirror.cli.doctor.keys import CHINA_KEY, GLOBAL_KEY
from image_mirror.cli.doctor.posting import Call, call_webhook
from image_mirror.cli.doctor.report import without
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.remedies import log_of
from image_mirror.cli.stacks import Stack


def examination(
    china_account: SharedAccount,
    global_account: SharedAccount,
    stack_name: str | None,
    global_stack_name: str,
    cluster: Cluster | None,
) -> Sequence[Finding]:
    """Examine everything, the cluster where there is one, and return the findings, none of which holds a secret."""
    asker = Asker()
    china = China(asker, china_account, stack_name)
    world = Abroad(asker, global_account, global_stack_name)
    for_copying = Credentials(
        asker,
        GLOBAL_KEY,
        End(china_account, china.stack, "GlobalSecret"),
        End(global_account, world.stack, "ImagePullUserName"),
        lambda key: key_readings.global_call(global_account, key, world.stack.answer().output("ProjectName")),
    )
    for_pushing = Credentials(
        asker,
        CHINA_KEY,
        End(global_account, world.stack, "ImagePullSecretArn"),
        End(china_account, china.stack, "ImagePushUserName"),
        lambda key: key_readings.china_call(china_account, key),
    )
    call = asker.ask(webhook.CALL, lambda: call_webhook(china.stack.answer()))
    asked = Asked(asker, cluster) if cluster else None
    asker.wait()

    def findings() -> Iterator[Finding]:
        yield from china.stack_findings()
        yield from world.stack_findings()
        yield from examine(stacks.RULES, stacks.judge_rules, china.stack)
        yield from examine(stacks.AGREEMENT, stacks.judge_agreement, china.stack, world.stack)
        yield from for_copying.findings()
        yield from for_pushing.findings()
        yield from world.findings(china.stack, china.waiting)
        yield from china.findings()
        yield from examine(webhook.CALL, _judge_call, call, china.stack)
        if asked:
            yield from asked.findings(china.stack)

    stack = china.stack.answer_or_none()
    token = urlsplit(stack.outputs.get("APIGatewayURL", "")).path.strip("/") if stack else ""
    return without(findings(), [token, *for_copying.secrets(), *for_pushing.secrets()])


def _judge_call(call: Call, stack: Stack) -> Sequence[Finding]:
    return webhook.judge_call(call, stack.output("CopiesPrefix"), log_of(stack, "WebhookLogGroup"))
