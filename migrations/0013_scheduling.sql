-- What the choice of a stage looks at, beside the graph.

alter table build
    add column priority      smallint not null default 0,
    -- A newer build of the project with the same key ends this one.
    add column supersede_key text,
    add column timeout_secs  int,
    add column deadline      timestamptz;
create index build_deadline on build (deadline)
    where state in ('queued', 'planning', 'running') and deadline is not null;
create index build_supersede on build (project, supersede_key)
    where state in ('queued', 'planning', 'running') and supersede_key is not null;

alter table stage
    add column priority           smallint not null default 0,
    -- Predicted milliseconds from its start to the end of the build.
    add column critical_millis    bigint not null default 0,
    add column labels             text[] not null default '{}',
    add column cpu_millis         int not null default 0,
    add column memory_bytes       bigint not null default 0,
    -- What it starts from, as far as that is known, and how much that is.
    add column base_chain         text,
    add column base_bytes         bigint not null default 0,
    add column timeout_secs       int,
    -- No live worker can run it: since when, and why.
    add column unplaceable_since  timestamptz,
    add column unplaceable_reason text;
-- Ready stages of a project: the most urgent, and the oldest.
create index stage_urgent on stage (project, priority desc, critical_millis desc, ready_at)
    where state = 'ready';
create index stage_oldest on stage (project, ready_at) where state = 'ready';
create index stage_running on stage (project) where state = 'running';
create index stage_timeout on stage (started_at)
    where state in ('running', 'parked') and timeout_secs is not null;
drop index stage_ready;

alter table stage_detail
    -- What its history is kept under.
    add column lineage text;

alter table worker
    add column labels            text[] not null default '{}',
    add column cpu_millis        int not null default 0,
    add column memory_bytes      bigint not null default 0,
    -- Stages that failed here by the farm's fault since one last succeeded.
    add column failed_stages     uuid[] not null default '{}',
    add column quarantined_until timestamptz,
    add column quarantine_reason text;
create index worker_idle on worker (id) where free_slots > 0 and not lost and not draining;

-- How long a stage took, the last times that it ran.
create table stage_history (
    project      text not null,
    lineage      text not null,
    recent       int[] not null,
    p50_millis   int not null,
    updated_at   timestamptz not null default now(),
    primary key (project, lineage)
);

-- Stacks of layers that workers have made or started from. A hint: they may have evicted them.
create table worker_chain (
    chain        text not null,
    worker_id    uuid not null,
    last_used    timestamptz not null default now(),
    primary key (chain, worker_id)
);
create index worker_chain_age on worker_chain (last_used);
