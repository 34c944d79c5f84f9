"""What is wrong, in words for the person who has to do something about it."""

from collections.abc import Iterable
from dataclasses import dataclass

from wallaroo_operator.observed import Coordinator, Pod

#: Seconds in which a pod that was told to go should have gone after its time was over.
LEAVING_TIME = 30.0

_UNPULLED = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "RegistryUnavailable",
    }
)
_UNMADE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True)
class Problem:
    """Why something is not as it should be."""

    reason: str
    message: str
    #: Whether a person must act.
    degraded: bool = True


def problem(pod: Pod, now: float) -> Problem | None:
    """Why a pod does not run as it should; None if that isn't known to be so."""
    if pod.deleting:
        if now > pod.gone_by + LEAVING_TIME:
            return Problem(
                "WorkerUnreachable",
                f"pod {pod.name} does not end: its node {pod.node} does not answer. If the node is "
                f"down for good, delete it (kubectl delete node {pod.node}) or taint it with "
                "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute; its worker then starts "
                "elsewhere. Do not delete the pod by force: two workers could use one volume.",
            )
        return None
    if pod.waiting in _UNPULLED:
        return Problem(
            "ImagePullFailed", f"the image of pod {pod.name} can't be pulled: {_words(pod)}"
        )
    if pod.waiting in _UNMADE:
        return Problem("PodFailed", f"pod {pod.name} can't start: {_words(pod)}")
    why = pod.last_words or f"its last run ended with code {pod.exit_code}"
    if pod.exit_code == 2 and not pod.running_since:
        return Problem("ModuleFailed", f"pod {pod.name}: {_last(why)}")
    if pod.waiting == "CrashLoopBackOff":
        return Problem(
            "CrashLoop", f"pod {pod.name} ends again and again: {_last(why)}; see kubectl logs"
        )
    if pod.unschedulable:
        return Problem(
            "Unschedulable",
            f"pod {pod.name} can't be scheduled: {pod.unschedulable}",
            degraded=False,
        )
    return None


def _words(pod: Pod) -> str:
    return pod.words or pod.waiting


def _last(text: str) -> str:
    """Of many lines the last: there a program says why it ended."""
    return text.splitlines()[-1] if text else ""


def numbers(ordinals: Iterable[int]) -> str:
    """Of workers.

    >>> numbers({2, 1})
    '1, 2'
    """
    return ", ".join(map(str, sorted(ordinals)))


def workers(count: int) -> str:
    """So many.

    >>> workers(1), workers(2)
    ('1 worker', '2 workers')
    """
    return f"{count} worker{'s' * (count != 1)}"


def failed(c: Coordinator) -> str:
    """Why the application has stopped, and what to do."""
    failure = c.failure or {}
    parts = [failure.get("message", "see the logs of the workers")]
    if failure.get("step"):
        parts.append(f"at step {failure['step']}, key {failure.get('key')}: {failure.get('event')}")
    if failure.get("traceback"):
        parts.append(str(failure["traceback"]))
    parts.append(
        "Nothing is lost: all is as of the last checkpoint. Correct the module, which is then "
        "rolled out; or set onError: DeadLetter"
    )
    return "\n".join(parts)
