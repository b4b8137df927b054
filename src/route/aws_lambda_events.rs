//! Conversions between [`Response`] and the proxy response of the `aws_lambda_events` crate.

use aws_lambda_events::encodings::Body;
use aws_lambda_events::event::apigw::ApiGatewayProxyResponse;
use http::StatusCode;

use super::{Error, Response};

impl From<Response> for ApiGatewayProxyResponse {
    fn from(response: Response) -> Self {
        let mut proxy = Self::default();
        proxy.status_code = i64::from(response.status().as_u16());
        proxy.headers = response.headers().clone();
        proxy.body = response.text().map(|text| Body::Text(text.to_owned()));
        proxy
    }
}

/// Fails for an invalid HTTP status or a binary body.
///
/// The default status of that crate, 0, is not valid.
impl TryFrom<ApiGatewayProxyResponse> for Response {
    type Error = Error;

    fn try_from(proxy: ApiGatewayProxyResponse) -> Result<Self, Error> {
        let status = u16::try_from(proxy.status_code).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let status =
            status.ok_or_else(|| Error::message(format_args!("{} is not an HTTP status", proxy.status_code)))?;
        let mut response = Self::new(status);
        for (name, value) in proxy.headers.iter().chain(&proxy.multi_value_headers) {
            response = response.header(name, String::from_utf8_lossy(value.as_bytes()));
        }
        match proxy.body {
            None | Some(Body::Empty) => Ok(response),
            Some(Body::Text(text)) => Ok(response.body(text)),
            Some(_) => Err(Error::message("the response of a WebSocket route must have a text body")),
        }
    }
}
