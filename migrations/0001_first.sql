-- The first schema. Old code must run on every newer one: expand, move, contract.

create table build (
    id               uuid primary key,
    project          text not null,
    state            text not null default 'queued' check (state in
                     ('queued', 'planning', 'running', 'succeeded', 'failed', 'cancelled', 'superseded')),
    request          jsonb not null,
    -- Idempotency-Key of the request: the same key is the same build.
    request_key      text,
    dockerfile       text not null,
    target           text,
    context          text,
    failure          jsonb,
    warnings         jsonb not null default '[]',
    -- Who plans it, until when: a planner that dies is replaced.
    planner          uuid,
    planner_until    timestamptz,
    created_at       timestamptz not null default now(),
    ended_at         timestamptz,
    unique (project, request_key)
);
create index build_unplanned on build (created_at) where state in ('queued', 'planning');
create index build_newest on build (project, created_at desc, id desc);

-- Hot and narrow: what scheduling and fencing need, nothing else.
create table stage (
    id               uuid primary key,
    build_id         uuid not null references build on delete cascade,
    project          text not null,
    position         int not null,
    kind             text not null check (kind in ('stage', 'export')),
    state            text not null check (state in
                     ('waiting', 'ready', 'running', 'parked', 'succeeded', 'failed', 'cancelled',
                      'cached', 'attached', 'skipped')),
    platform         text not null,
    -- Stages that still have to run after it on the longest path to the build's end.
    depth            int not null default 0,
    -- Bases that are not there yet.
    bases_missing    int not null default 0,
    -- The fencing token: +1 at each claim, never reset.
    epoch            bigint not null default 0,
    attempts         int not null default 0,
    worker_id        uuid,
    session          uuid,
    -- The worker to prefer for a moment: it has the base.
    home_worker      uuid,
    -- Set when the holder has to drop it: 'cancelled' or 'build_failed'.
    drop_reason      text,
    ready_at         timestamptz,
    not_before       timestamptz not null default now(),
    started_at       timestamptz,
    ended_at         timestamptz
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02);
create index stage_ready on stage (depth desc, ready_at) where state = 'ready';
create index stage_held on stage (worker_id) where state in ('running', 'parked');
create index stage_of_build on stage (build_id, position);

-- Cold: what a stage is and what became of it.
create table stage_detail (
    stage_id         uuid primary key references stage on delete cascade,
    label            text not null,
    -- `common::plan::PlannedStage`, or what an export makes.
    plan             jsonb not null,
    -- Number of the first step to run, and the layers below it as far as they are known.
    first_step       int not null default 0,
    base_layers      jsonb,
    -- Slices to make when the last step has ended.
    make_slices      jsonb not null default '[]',
    -- Layers of the result, lowest first.
    layers           jsonb,
    failure          jsonb,
    timing           jsonb not null default '{}',
    transfers        jsonb not null default '[]',
    uploaded_bytes   bigint not null default 0
);

create table stage_edge (
    consumer         uuid not null references stage on delete cascade,
    producer         uuid not null references stage on delete cascade,
    -- Whether the consumer starts FROM the producer; otherwise it copies out of it.
    is_base          boolean not null,
    primary key (producer, consumer)
);
create index stage_edge_consumer on stage_edge (consumer);

create table step (
    stage_id         uuid not null references stage on delete cascade,
    number           int not null,
    display          text not null,
    line_start       int not null,
    line_end         int not null,
    key              text not null,
    key_parts        jsonb not null,
    state            text not null default 'pending' check (state in
                     ('pending', 'running', 'done', 'cached', 'failed')),
    timing           jsonb not null default '{}',
    primary key (stage_id, number)
);

create table attempt (
    stage_id         uuid not null references stage on delete cascade,
    epoch            bigint not null,
    worker_id        uuid not null,
    started_at       timestamptz not null default now(),
    ended_at         timestamptz,
    outcome          text,
    failure          jsonb,
    primary key (stage_id, epoch)
);

-- Slices that a stage of a build has made, or that were found for it.
create table stage_slice (
    stage_id         uuid not null references stage on delete cascade,
    selector         text not null,
    paths            jsonb not null,
    manifest         text not null,
    inline_manifest  text,
    files            bigint not null,
    content_bytes    bigint not null,
    stored_bytes     bigint not null,
    primary key (stage_id, selector)
);

-- The cache. Only the coordinator writes it, and only for the holder of a live lease.
create table cache_record (
    project          text not null,
    key              text not null,
    layer            jsonb not null,
    created_at       timestamptz not null default now(),
    last_used        timestamptz not null default now(),
    primary key (project, key)
);

create table cache_slice (
    project          text not null,
    stage_key        text not null,
    selector         text not null,
    paths            jsonb not null,
    manifest         text not null,
    inline_manifest  text,
    files            bigint not null,
    content_bytes    bigint not null,
    stored_bytes     bigint not null,
    last_used        timestamptz not null default now(),
    primary key (project, stage_key, selector)
);

create table object (
    project          text not null,
    kind             text not null,
    digest           text not null,
    size_bytes       bigint not null,
    present          boolean not null default false,
    last_used        timestamptz not null default now(),
    primary key (project, kind, digest)
);

create table worker (
    id               uuid primary key,
    name             text not null,
    session          uuid,
    platforms        text[] not null,
    slots            int not null default 0,
    free_slots       int not null default 0,
    draining         boolean not null default false,
    lost             boolean not null default false,
    version          text not null,
    last_seen        timestamptz not null default now()
) with (fillfactor = 60);

create table image_fact (
    reference        text not null,
    platform         text not null,
    image            jsonb not null,
    fetched_at       timestamptz not null default now(),
    primary key (reference, platform)
);

create table log_chunk (
    stage_id         uuid not null references stage on delete cascade,
    epoch            bigint not null,
    chunk            int not null,
    object           text not null,
    lines            int not null,
    bytes            int not null,
    primary key (stage_id, epoch, chunk)
);

create table export_result (
    stage_id         uuid not null references stage on delete cascade,
    target           int not null,
    kind             text not null,
    names            jsonb not null,
    digest           text not null,
    config_digest    text not null,
    archive          text,
    archive_bytes    bigint,
    primary key (stage_id, target)
);
