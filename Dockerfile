# Three images from one build: `coordinator`, `agent`, and `agent-code`, which is `agent` with Python, for sites that run
# programs which a model wrote (docs/operations.md).
#   docker build --target coordinator -t sheaf .
#   docker build --target agent -t sheaf-agent .
#   docker build --target agent-code -t sheaf-agent-code .
FROM rust:1.95-slim-bookworm AS build
# For the OpenSSL that opendp builds in, as its source of random numbers.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make perl && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The toolchain is the image's own: rust-toolchain.toml stays outside the context, since it would fetch another.
RUN cargo build --release --locked --bin sheaf --bin sheaf-agent

FROM debian:bookworm-slim AS base
RUN groupadd --system --gid 10001 sheaf \
    && useradd --system --uid 10001 --gid sheaf --home-dir /var/lib/sheaf --no-create-home sheaf
COPY --from=build /src/LICENSE-APACHE /src/LICENSE-MIT /usr/share/doc/sheaf/

FROM base AS coordinator
COPY --from=build /src/target/release/sheaf /usr/local/bin/sheaf
COPY coordinator/dist/entrypoint.sh /usr/local/bin/entrypoint
RUN install --directory --owner=sheaf --group=sheaf --mode=0700 /var/lib/sheaf
USER sheaf
ENV SHEAF_HOME=/var/lib/sheaf
VOLUME /var/lib/sheaf
EXPOSE 7443
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["sheaf", "info"]
ENTRYPOINT ["entrypoint"]

FROM base AS agent-base
COPY --from=build /src/target/release/sheaf-agent /usr/local/bin/sheaf-agent
COPY agent/dist/entrypoint.sh /usr/local/bin/entrypoint
RUN install --directory --owner=sheaf --group=sheaf --mode=0700 /var/lib/sheaf-agent
USER sheaf
ENV SHEAF_AGENT_CONFIG=/etc/sheaf/agent.toml
VOLUME /var/lib/sheaf-agent
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["sheaf-agent", "status", "--check"]
ENTRYPOINT ["entrypoint"]

FROM agent-base AS agent-code
# What the sandbox is made of; all but Python is in the base image so far.
USER root
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends python3 util-linux mount coreutils libc-bin \
    && rm -rf /var/lib/apt/lists/*
USER sheaf

# The last, so that a build without --target has no Python.
FROM agent-base AS agent
