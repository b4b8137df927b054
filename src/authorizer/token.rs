//! The token that a client authenticates with.

use super::{Denied, Request};

impl Request {
    /// Returns the client's token from the query string or a subprotocol.
    ///
    /// The token is the value of the query parameter `parameter`, or follows `bearer.` in a
    /// subprotocol.
    ///
    /// A browser cannot set headers of a WebSocket request, but it can set subprotocols:
    /// `new WebSocket(url, ["chat.v1", "bearer." + token])`. Unlike a query string, a subprotocol
    /// does not appear in access logs. The client needs to offer another subprotocol beside the
    /// token, and `$connect` needs to [select](crate::Response::subprotocol) that one: a browser
    /// closes the connection if it offered subprotocols and the server selects none. A subprotocol
    /// consists of the characters that HTTP allows in a
    /// [token](https://www.rfc-editor.org/rfc/rfc9110#name-tokens). A JSON Web Token has only
    /// these; base64 has others.
    ///
    /// Configure the authorizer without an identity source, or with one that both kinds of clients
    /// send. API Gateway itself responds with 401 to a request that lacks an identity source.
    ///
    /// # Errors
    ///
    /// [`Denied::Unauthorized`] if there is no token, an empty one, or more than one.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::authorizer::{Authorization, Denied, Request};
    ///
    /// async fn authorize(request: Request) -> Result<Authorization, Denied> {
    ///     let token = request.token("Auth")?; // 401
    ///     # let verify = |token: &str| token.strip_prefix("user-").map(str::to_owned);
    ///     Ok(Authorization::allow(verify(token).ok_or(Denied::Forbidden)?)) // 403
    /// }
    /// ```
    pub fn token(&self, parameter: &str) -> Result<&str, Denied> {
        let in_query = self.query_string().iter().filter(|(name, _)| *name == parameter).map(|(_, value)| value);
        let mut tokens = in_query.chain(self.subprotocols().filter_map(|name| name.strip_prefix(BEARER)));
        match (tokens.next(), tokens.next()) {
            (Some(token), None) if !token.is_empty() => Ok(token),
            _ => Err(Denied::Unauthorized),
        }
    }

    /// Returns the subprotocols offered by the client, in order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.headers().subprotocols()
    }
}

/// The prefix of a subprotocol that carries a token.
const BEARER: &str = "bearer.";
