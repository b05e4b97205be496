-- Tags that builds have moved, a row for each tag of a project. Only forward: the order of builds is
-- that of their submission. The rows outlive the builds, so the order is kept here.

create table image_tag (
    project          text not null,
    -- The whole reference, as in REGISTRY/REPOSITORY:TAG.
    name             text not null,
    -- The newest build that has moved it.
    mover            uuid,
    mover_at         timestamptz,
    -- The build that may move it now, with which lease, until when.
    holder           uuid,
    holder_at        timestamptz,
    holder_stage     uuid,
    holder_epoch     bigint,
    held_until       timestamptz,
    primary key (project, name)
);

-- Names of an export that were left at a newer build: [{"name": …, "newer": …}].
alter table export_result add column left_names jsonb not null default '[]';
