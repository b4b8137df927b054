//! Who has signed the request that opened a connection.

use std::fmt;

use serde_json::{Map, Value};

/// The AWS identity of a client, where the API's `$connect` route uses IAM authorization.
///
/// Each method returns `None` for a member that API Gateway leaves out or sends as `null`: the members of Amazon Cognito are there
/// for callers with an identity of an identity pool.
///
/// See [the variables](https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-mapping-template-reference.html)
/// below `$context.identity`.
#[derive(Clone, Copy)]
pub struct IamIdentity<'a>(&'a Map<String, Value>);

/// Each method, its member, and what it is.
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
    /// Returns the principal id of the user; it is usually that of the [caller](Self::caller).
    user: "user",
    /// Returns the caller's AWS account.
    account_id: "accountId",
    /// Returns the id of the access key that signed the request.
    access_key: "accessKey",
    /// Returns the caller's organization in AWS Organizations.
    principal_org_id: "principalOrgId",
    /// Returns the caller's identity in an identity pool of Amazon Cognito.
    cognito_identity_id: "cognitoIdentityId",
    /// Returns the identity pool.
    cognito_identity_pool_id: "cognitoIdentityPoolId",
    /// Returns `authenticated` or `unauthenticated`.
    cognito_authentication_type: "cognitoAuthenticationType",
    /// Returns the providers by which the caller has signed in, separated by commas.
    cognito_authentication_provider: "cognitoAuthenticationProvider",
}

impl<'a> IamIdentity<'a> {
    /// The identity in a context, if anybody has signed.
    pub(super) fn new(identity: &'a Value) -> Option<Self> {
        let identity = Self(identity.as_object()?);
        Self::MEMBERS.iter().any(|member| identity.member(member).is_some()).then_some(identity)
    }

    fn member(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }
}

/// Shows which members there are.
impl fmt::Debug for IamIdentity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Self::MEMBERS.iter().filter(|member| self.member(member).is_some())).finish()
    }
}
