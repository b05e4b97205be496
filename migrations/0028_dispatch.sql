-- All that a worker has to know of a stage, but for the slices that it reads.
create view stage_job as
    select s.id, s.build_id, s.project, s.kind, d.label, b.dockerfile, d.plan, d.first_step,
           d.base_layers, d.make_slices, b.context,
           (select jsonb_agg(jsonb_build_object('stage', e.producer, 'layers', p.layers))
            from stage_edge e join stage_detail p on p.stage_id = e.producer
            where e.consumer = s.id and e.is_base) as producers,
           exists (select 1 from stage_edge e join stage_slice l on l.stage_id = e.producer
                   where e.consumer = s.id) as has_slices
    from stage s join stage_detail d on d.stage_id = s.id join build b on b.id = s.build_id;

-- They are counted without a look at those that have ended.
create index stage_waiting on stage (build_id) where state = 'waiting';

-- How often the build was planned again because something that it needs was damaged.
alter table build add column plans int not null default 0;
