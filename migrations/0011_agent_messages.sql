-- Messages between ssh-agents of clients and those who use them: commands and git on workers, git on
-- coordinators. A row lives from a question to its answer, and may be lost: then the one who asked is
-- told that nothing was done.

create unlogged table agent_message (
    id               uuid primary key,
    build_id         uuid not null references build on delete cascade,
    -- The agent's name: `--ssh NAME`.
    agent            text not null,
    -- Some requests are about the connection that they come by.
    connection       uuid not null,
    -- Absent: the connection has ended.
    request          bytea,
    created_at       timestamptz not null default now(),
    -- When a client was given it first.
    taken_at         timestamptz,
    answer           bytea
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
create index agent_message_of_build on agent_message (build_id, created_at);
