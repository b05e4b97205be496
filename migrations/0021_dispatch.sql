-- What workers are to drop is found without a look at each of them.
create index stage_to_drop on stage (worker_id)
    where drop_reason is not null and state in ('running', 'parked');
