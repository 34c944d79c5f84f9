"""`python -m wallaroo_operator`: runs the operator.

Each option may be given as a variable of the environment, too: WALLAROO_WORKER_IMAGE and so on.
"""

import asyncio
import logging

import click
import kopf

from wallaroo_operator.handlers import Operator
from wallaroo_operator.observe import Settings


@click.command(context_settings={"auto_envvar_prefix": "WALLAROO"})
@click.option(
    "--worker-image",
    required=True,
    metavar="IMAGE",
    help="Of workers that run a module from a ConfigMap.",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NAME",
    help="Look after applications of this namespace alone; may be given several times. Without it "
    "after those of the whole cluster.",
)
@click.option("--port", default=8080, show_default=True, help="Of metrics and health.")
@click.option("--tls/--no-tls", default=True, help="Certificates for workers made from now on.")
@click.option("--verbose", is_flag=True, help="Log why something is decided again.")
def main(
    worker_image: str, namespaces: tuple[str, ...], port: int, tls: bool, verbose: bool
) -> None:
    """Run the operator of WallarooApps until it is told to end."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=form)
    for noisy in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    operator = Operator(Settings(worker_image, tls), port)
    asyncio.run(
        kopf.operator(
            registry=operator.registry(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=list(namespaces),
        )
    )


if __name__ == "__main__":
    main()
