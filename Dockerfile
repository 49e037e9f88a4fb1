# syntax=docker/dockerfile:1
# The image of the gateway: one binary, CA certificates, a data folder, no root.

ARG RUST_VERSION=1.95
ARG DEBIAN_RELEASE=trixie

FROM rust:${RUST_VERSION}-slim-${DEBIAN_RELEASE} AS build
WORKDIR /src
# Function names stay for backtraces; line tables go, they are most of the binary's size.
# `--build-arg STRIP=none` keeps them.
ARG STRIP=debuginfo
ENV CARGO_PROFILE_RELEASE_STRIP=${STRIP}
COPY . .
# The registry and the target folder are cache mounts: they outlive the layer, so a rebuild compiles
# only what changed. They are not part of any layer, so the binary is copied out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/usr/local/cargo/git,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --package gateway --bin tollway \
    && install -D target/release/tollway /out/tollway

FROM debian:${DEBIAN_RELEASE}-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 tollway \
    && useradd --system --uid 10001 --gid tollway --home-dir /var/lib/tollway --shell /usr/sbin/nologin tollway \
    && install -d -o tollway -g tollway -m 0750 /var/lib/tollway
COPY --from=build /out/tollway /usr/local/bin/tollway
COPY deploy/healthcheck.sh /usr/local/bin/tollway-healthcheck
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/tollway/

# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# Relative paths, the embedded store's too, land in the volume.
WORKDIR /var/lib/tollway
VOLUME /var/lib/tollway
# Inside a container loopback reaches nobody; what is published is decided outside.
ENV TOLLWAY_LISTEN=0.0.0.0:8402
EXPOSE 8402
# Alive, not ready: with the database away the gateway goes on within its leases and must not be restarted.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["tollway-healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tollway"]
CMD ["serve"]
