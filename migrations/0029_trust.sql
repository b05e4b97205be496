-- Builds of strangers' code: what they store is for builds of their kind alone, what the others have
-- stored they read.
alter table build add column untrusted boolean not null default false;
alter table stage add column untrusted boolean not null default false;

alter table cache_record add column untrusted boolean not null default false;
alter table cache_record drop constraint cache_record_pkey, add primary key (project, key, untrusted);

alter table cache_slice add column untrusted boolean not null default false;
alter table cache_slice drop constraint cache_slice_pkey,
    add primary key (project, stage_key, selector, untrusted);
