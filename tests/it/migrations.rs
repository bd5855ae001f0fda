//! Migrations with data of before.

use sqlx::{ConnectOptions, postgres::PgConnectOptions};

use crate::rig::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn each_migration_applies_to_data_of_the_ones_before() {
    let server = Server::start().await;
    let options = PgConnectOptions::new_without_pgpass()
        .socket(server.socket_folder())
        .username("amtsbote");
    amtsbote::storage::create_database(&options.clone().database("postgres"), "samples")
        .await
        .unwrap();
    let mut conn = options.database("samples").connect().await.unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(root.join("migrations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    files.sort();
    for file in files {
        for folder in ["migrations", "tests/data/migrations"] {
            let path = root.join(folder).join(&file);
            let sql = std::fs::read_to_string(&path).unwrap();
            let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(&mut conn)
                .await;
            done.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}
