-- Stages end twice: when their steps have ended, and when their layers are stored. Stages with the
-- same key run once. And what a step reads of other stages counts by its content.
alter table stage
    -- Its steps have ended and its slices are stored; its layers are on their way.
    add column done_at     timestamptz,
    -- Its key, where others may share its run.
    add column key         text,
    -- The stage that ran, or runs, in its place.
    add column attached_to uuid references stage on delete set null,
    -- Whether the build ends only after it.
    add column goal        boolean not null default false,
    -- Its base is done there and not stored yet: nobody else can run it.
    add column only_worker uuid;
update stage set goal = true where kind = 'export';
create index stage_shared on stage (project, key)
    where state in ('waiting', 'ready', 'running', 'parked') and key is not null;
create index stage_followers on stage (attached_to) where attached_to is not null;

alter table step
    -- Its layer is stored, or never will be.
    add column settled     boolean not null default true;
alter table step alter column settled set default false;
create index step_unsettled on step (key) where state = 'done' and not settled;

-- The digest of a slice's files, without times: NULL where it was made before there was one.
alter table stage_slice add column content text;
alter table cache_slice add column content text;
-- The content key, where it is another one than the key.
alter table step add column content_key text;
alter table cache_record add column content_key text;
create index stage_detail_lineage on stage_detail (lineage, stage_id) where lineage is not null;
