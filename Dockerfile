# The two images of Wallaroo on Kubernetes:
#
#   docker build --target worker   -t wallaroo/worker .      what applications run in
#   docker build --target operator -t wallaroo/operator .    what looks after them
#
# All versions are those of constraints.txt. The compiler, pip and the sources stay in the builders;
# what leaves them is one virtual environment, compiled, since nothing can be written at run time.

ARG PYTHON=docker.io/library/python:3.13-slim

# A compiler for the tables of state, pip beside the environment that it fills, and what workers need.
FROM ${PYTHON} AS builder
RUN apt-get update -q \
    && apt-get install -q -y --no-install-recommends gcc libc6-dev \
    && { test -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
        || apt-get install -q -y --no-install-recommends python3-dev; } \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/wallaroo
ENV PATH=/opt/pip/bin:$PATH \
    PIP_CONSTRAINT=/src/constraints.txt PIP_PYTHON=/opt/wallaroo/bin/python \
    PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt pyproject.toml ./
RUN python3 -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
more = project["optional-dependencies"]; \
open("worker.txt", "w").write("\n".join(project["dependencies"])); \
open("operator.txt", "w").write("\n".join(more.get("operator", [])))' \
    && pip install -r worker.txt

# Without a compiler the tables would be in Python, and slow: that must not happen unseen.
FROM builder AS wheel
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels . \
    && python3 -m zipfile -l /wheels/*.whl | grep -q 'wallaroo/state/_native.*\.so'

FROM builder AS worker-environment
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps /wheels/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/wallaroo/lib

FROM builder AS operator-environment
RUN pip install -r operator.txt
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps /wheels/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/wallaroo/lib

# The image comes without the standard library's bytecode; a worker would compile it at every start.
FROM ${PYTHON} AS base
RUN python3 -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(test|idlelib|lib2to3|ensurepip|tkinter|turtledemo|(site|dist)-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && echo 'wallaroo:x:65532:65532:Wallaroo:/home/wallaroo:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'wallaroo:x:65532:' >>/etc/group \
    && install -d -o 65532 -g 65532 /home/wallaroo /var/lib/wallaroo
ENV PATH=/opt/wallaroo/bin:$PATH HOME=/home/wallaroo PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /home/wallaroo
USER 65532:65532
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.vendor="The Wallaroo on Kubernetes authors"

FROM base AS operator
COPY --from=operator-environment /opt/wallaroo /opt/wallaroo
LABEL org.opencontainers.image.title="wallaroo operator" \
    org.opencontainers.image.description="Runs WallarooApps: stateful stream processing whose state moves between pods while events flow"
EXPOSE 8080
ENTRYPOINT ["python", "-m", "wallaroo_operator"]

FROM base AS worker
COPY --from=worker-environment /opt/wallaroo /opt/wallaroo
LABEL org.opencontainers.image.title="wallaroo worker" \
    org.opencontainers.image.description="Stateful stream processing in plain Python"
EXPOSE 7710 7711 7712
ENTRYPOINT ["wallaroo"]
CMD ["--help"]
