//! Keys of other servers, vouched for by us (specification, "Querying keys through another
//! server").

use ruma::{CanonicalJsonObject, OwnedServerName};

use super::{Client, Error, keys::document};
use crate::event::keys::SigningKeys;

/// Servers in one question.
pub const SERVERS_MAX: usize = 100;

/// Key documents of some servers with our signature added; those that cannot be had are left out.
/// Shape: (server, least time until which the document should be good).
pub async fn vouch(
    client: &Client,
    own: &SigningKeys,
    wanted: &[(OwnedServerName, i64)],
) -> Result<Vec<CanonicalJsonObject>, Error> {
    use futures_util::{StreamExt, TryStreamExt, stream};
    let answers = wanted
        .iter()
        .take(SERVERS_MAX)
        .map(|(server, until)| async {
            if *server == own.server_name {
                let own = document(own).map_err(|error| Error::Request(error.to_string()))?;
                return Ok::<_, Error>(Some(own));
            }
            if !client.gate().allows(server) {
                return Ok(None);
            }
            let Some(body) = client.keys().document(server, *until).await? else {
                return Ok(None);
            };
            let Ok(mut object) = serde_json::from_str::<CanonicalJsonObject>(&body) else {
                return Ok(None);
            };
            own.sign_json(&mut object)
                .map_err(|error| Error::Request(error.to_string()))?;
            Ok(Some(object))
        });
    let answers: Vec<_> = answers.collect();
    let found = stream::iter(answers).buffered(10);
    found
        .try_filter_map(|found| async { Ok(found) })
        .try_collect()
        .await
}
