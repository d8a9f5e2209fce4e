# One image for worker, relay, command line and local Ark; the command says which.
FROM python:3.11.15-slim-bookworm

ENV PYTHONUNBUFFERED=1

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin seedance
WORKDIR /app

COPY deploy/requirements.txt deploy/
RUN pip install --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes \
    -r deploy/requirements.txt

COPY worker.py relay.py codec.py starter.py ./
COPY seedance_temporal/ seedance_temporal/
COPY activities/ activities/
COPY workflows/ workflows/
COPY workers/ workers/
COPY dev/__init__.py dev/
COPY dev/ark/ dev/ark/
COPY deploy/create_bucket.py deploy/
# The user below cannot write here, and each run of a workflow imports its modules anew, in a sandbox.
RUN python -m compileall -q .

USER 10001
STOPSIGNAL SIGTERM
CMD ["python", "worker.py"]
