//! The token by which a client says who it is.

use super::{Denied, Request};

impl Request {
    /// Returns the client's token: the query parameter of this name, or the subprotocol `bearer.<token>`.
    ///
    /// A browser cannot set headers of a WebSocket request, but subprotocols:
    /// `new WebSocket(url, ["chat.v1", "bearer." + token])`. Unlike a query string, a subprotocol is in no access log. The client needs
    /// to offer another subprotocol beside the token, and `$connect` needs to [select](crate::Response::subprotocol) that: a browser
    /// closes a connection for which it has offered subprotocols and none is selected. Subprotocols are made of the characters that
    /// HTTP allows in a [token](https://www.rfc-editor.org/rfc/rfc9110#name-tokens): a JSON Web Token has no others, base64 does.
    ///
    /// The authorizer of such an API has no identity source, or one that both kinds of clients send, since API Gateway answers 401 itself
    /// for a request without one of them.
    ///
    /// # Errors
    ///
    /// [`Denied::Unauthorized`] without a token, with an empty one, and with more than one.
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

/// What a subprotocol starts with that is a token.
const BEARER: &str = "bearer.";
