-- What is kept, and how long. Bytes go in two steps: struck out here, deleted from the store after a
-- pause; whoever wants them in between has them back.

alter table object
    -- When it is looked at next: whether anything refers to it.
    add column check_after  timestamptz not null default now(),
    -- Struck out: its bytes go after that.
    add column delete_after timestamptz,
    -- Its bytes are being deleted: nobody may count on them, and nobody may write them.
    add column deleting_at  timestamptz;
create index object_check on object (check_after) where delete_after is null;
create index object_doomed on object (delete_after) where delete_after is not null;

-- The packs of a manifest: they stay as long as it does.
create table object_part (
    project          text not null,
    pack             text not null,
    manifest         text not null,
    primary key (project, pack, manifest)
);
create index object_part_of on object_part (project, manifest);

create index cache_record_blob on cache_record (project, (layer->>'blob'));
create index cache_record_oldest on cache_record (project, last_used);
create index cache_slice_manifest on cache_slice (project, manifest);
create index cache_slice_oldest on cache_slice (project, last_used);

alter table build
    -- Manifests of the contexts that its stages read.
    add column inputs    text[] not null default '{}',
    -- Its bytes were purged.
    add column purged_at timestamptz,
    -- Its logs are gone.
    add column logs_gone boolean not null default false;
create index build_live on build (project, created_at) where state in ('queued', 'planning', 'running');
create index build_ended on build (ended_at) where ended_at is not null;
create index build_logs on build (ended_at) where ended_at is not null and not logs_gone;
create index build_purged on build (purged_at) where purged_at is not null and not logs_gone;

-- Settings of a project, and what it takes. NULL is the farm's setting.
create table project (
    name             text primary key,
    -- Its part of the workers, against the other projects' parts.
    weight           int check (weight between 1 and 100000),
    cache_bytes      bigint check (cache_bytes >= 0),
    cache_secs       bigint check (cache_secs > 0),
    logs_secs        bigint check (logs_secs > 0),
    builds_secs      bigint check (builds_secs > 0),
    used_bytes       bigint not null default 0,
    used_objects     bigint not null default 0,
    -- More than it may have, when it was measured.
    over_bytes       bigint not null default 0,
    measured_at      timestamptz
);

-- What one coordinator does at a time.
create table duty (
    name             text primary key,
    holder           uuid not null,
    held_until       timestamptz not null
);

-- Builds that may still read: those that have not ended, those of stages that are held, and those
-- whose stages run in the place of theirs.
create view live_build as
    with recursive live as (
        (select id from build where state in ('queued', 'planning', 'running')
         union
         select build_id from stage where state in ('running', 'parked'))
        union
        select l.build_id
        from live join stage f on f.build_id = live.id and f.state = 'attached'
             join stage l on l.id = f.attached_to)
    select b.id, b.project, b.created_at from live join build b on b.id = live.id;

-- What a build refers to.
create view build_object as
    select s.build_id, s.project, 'blob' as kind, layer->>'blob' as digest
    from stage s join stage_detail d on d.stage_id = s.id,
         jsonb_array_elements(coalesce(d.layers, '[]') || coalesce(d.base_layers, '[]')) layer
    where layer->'origin'->>'kind' in ('farm', 'brought')
    union all
    select s.build_id, s.project, 'manifest', l.manifest
    from stage s join stage_slice l on l.stage_id = s.id
    union all
    select b.id, b.project, 'manifest', input from build b, unnest(b.inputs) input;
