-- Secrets of builds that have not ended, sealed with a key that the database does not hold.

create table build_secret (
    build_id         uuid not null references build on delete cascade,
    name             text not null,
    -- Nonce and ciphertext; build and name are authenticated with it.
    sealed           bytea not null,
    primary key (build_id, name)
);
