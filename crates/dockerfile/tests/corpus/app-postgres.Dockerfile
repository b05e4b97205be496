FROM debian:bookworm-slim
RUN set -eux; \
	groupadd -r postgres --gid=999; \
	useradd -r -g postgres --uid=999 --home-dir=/var/lib/postgresql --shell=/bin/bash postgres; \
# also create the postgres user's home directory with appropriate permissions
	install --verbose --directory --owner postgres --group postgres --mode 1777 /var/lib/postgresql
ENV LANG en_US.utf8
ENV PG_MAJOR 17
ENV PG_VERSION 17.2-1.pgdg120+1
ENV PATH $PATH:/usr/lib/postgresql/$PG_MAJOR/bin
RUN mkdir /docker-entrypoint-initdb.d
ENV PGDATA /var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
COPY docker-entrypoint.sh docker-ensure-initdb.sh /usr/local/bin/
RUN ln -sT docker-ensure-initdb.sh /usr/local/bin/docker-enforce-initdb.sh
ENTRYPOINT ["docker-entrypoint.sh"]

# We set the default STOPSIGNAL to SIGINT, which corresponds to what PostgreSQL
# calls "Fast Shutdown mode".
STOPSIGNAL SIGINT
#
# An additional setting that is recommended for all users regardless of this
# value is the runtime "--stop-timeout".
EXPOSE 5432
CMD ["postgres"]
