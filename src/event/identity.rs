//! The AWS identity that signed the handshake request.

use std::fmt;

use serde_json::{Map, Value};

/// The AWS identity of a client, if the API's `$connect` route uses IAM authorization.
///
/// Each method returns `None` if API Gateway omits the member or sends `null`. The members of
/// Amazon Cognito are present for callers with an identity of an identity pool.
///
/// See [the `$context.identity`
/// variables](https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-mapping-template-reference.html).
#[derive(Clone, Copy)]
pub struct IamIdentity<'a>(&'a Map<String, Value>);

/// Defines a method for each member, from its doc comment, method name, and member name.
macro_rules! members {
    ($($(#[$doc:meta])+ $method:ident: $member:literal,)*) => {
        impl<'a> IamIdentity<'a> {
            const MEMBERS: &'static [&'static str] = &[$($member),*];

            $(
                $(#[$doc])+
                pub fn $method(&self) -> Option<&'a str> {
                    self.member($member)
                }
            )*
        }
    };
}

members! {
    /// Returns the ARN of the user or of the assumed role's session.
    user_arn: "userArn",
    /// Returns the principal id of the caller, such as `AROA…:session`.
    caller: "caller",
    /// Returns the principal id of the user, usually the same as [`caller`](Self::caller).
    user: "user",
    /// Returns the caller's AWS account id.
    account_id: "accountId",
    /// Returns the id of the access key that signed the request.
    access_key: "accessKey",
    /// Returns the id of the caller's organization in AWS Organizations.
    principal_org_id: "principalOrgId",
    /// Returns the caller's identity id in an Amazon Cognito identity pool.
    cognito_identity_id: "cognitoIdentityId",
    /// Returns the id of the caller's identity pool.
    cognito_identity_pool_id: "cognitoIdentityPoolId",
    /// Returns `authenticated` or `unauthenticated`.
    cognito_authentication_type: "cognitoAuthenticationType",
    /// Returns the providers that the caller signed in with, separated by commas.
    cognito_authentication_provider: "cognitoAuthenticationProvider",
}

impl<'a> IamIdentity<'a> {
    /// Returns the identity in a context, if the request was signed.
    pub(super) fn new(identity: &'a Value) -> Option<Self> {
        let identity = Self(identity.as_object()?);
        Self::MEMBERS.iter().any(|member| identity.member(member).is_some()).then_some(identity)
    }

    fn member(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }
}

/// Shows which members are present.
impl fmt::Debug for IamIdentity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Self::MEMBERS.iter().filter(|member| self.member(member).is_some())).finish()
    }
}
