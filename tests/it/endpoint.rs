use lambda_websocket::Event;
use lambda_websocket::event::{ApiId, Region, Stage};
use lambda_websocket::push::Endpoint;
use proptest::prelude::*;

use crate::fixture;

fn new(region: &str) -> Endpoint {
    let region = Region::new(region).unwrap();
    Endpoint::new(&ApiId::new("a1b2c3d4e5").unwrap(), &region, &Stage::new("dev").unwrap())
}

fn from(variables: &[(&str, &str)]) -> Result<Endpoint, String> {
    let lookup = |name: &str| variables.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned());
    Endpoint::from_variables(lookup).map_err(|error| error.to_string())
}

#[test]
fn end_1_every_partition_has_its_suffix() {
    for (region, suffix) in [
        ("eu-central-1", "amazonaws.com"),
        ("us-gov-west-1", "amazonaws.com"),
        ("cn-north-1", "amazonaws.com.cn"),
        ("us-iso-east-1", "c2s.ic.gov"),
        ("us-isob-east-1", "sc2s.sgov.gov"),
        ("us-isof-south-1", "csp.hci.ic.gov"),
        ("eu-isoe-west-1", "cloud.adc-e.uk"),
        ("eusc-de-east-1", "amazonaws.eu"),
    ] {
        let endpoint = new(region);
        assert_eq!(endpoint.as_str(), format!("https://a1b2c3d4e5.execute-api.{region}.{suffix}/dev"));
        assert_eq!(endpoint.region().unwrap(), region);
        let read: Endpoint = endpoint.as_str().parse().unwrap();
        assert_eq!(read, endpoint, "the region is read off the host");
    }
}

/// Without an endpoint, the SDK resolves `https://execute-api.<region>.<suffix>`: the same suffix.
#[cfg(feature = "sdk")]
#[tokio::test]
async fn end_1_suffixes_match_the_sdk() {
    use aws_sdk_apigatewaymanagement::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};

    for region in [
        "af-south-1",
        "ap-east-2",
        "ap-southeast-7",
        "ca-west-1",
        "cn-north-1",
        "cn-northwest-1",
        "eu-central-2",
        "eu-isoe-west-1",
        "eusc-de-east-1",
        "il-central-1",
        "me-central-1",
        "mx-central-1",
        "sa-east-1",
        "us-east-1",
        "us-gov-east-1",
        "us-iso-east-1",
        "us-iso-west-1",
        "us-isob-east-1",
        "us-isob-west-1",
        "us-isof-east-1",
        "us-isof-south-1",
    ] {
        let params = Params::builder().region(region).build().unwrap();
        let resolved = DefaultResolver::new().resolve_endpoint(&params).await.unwrap();
        assert_eq!(new(region).as_str(), resolved.url().replacen("https://", "https://a1b2c3d4e5.", 1) + "/dev");
    }
}

#[test]
fn end_2_custom_domain_mapping_key_is_optional() {
    assert_eq!(Endpoint::custom_domain("ws.example.com", "chat").unwrap().as_str(), "https://ws.example.com/chat");
    assert_eq!(Endpoint::custom_domain("ws.example.com", "").unwrap().as_str(), "https://ws.example.com");
    assert!(Endpoint::custom_domain("ws.example.com", "chat").unwrap().region().is_none());
    assert!(Endpoint::custom_domain("not a host", "chat").is_err());
}

#[test]
fn default_port_is_omitted() {
    for (url, expected) in [
        ("https://ws.example.com:443/chat", "https://ws.example.com/chat"),
        ("wss://ws.example.com:443", "https://ws.example.com"),
        ("http://127.0.0.1:80/dev", "http://127.0.0.1/dev"),
        ("http://[::1]:80/dev", "http://[::1]/dev"),
        ("https://ws.example.com:8443/chat", "https://ws.example.com:8443/chat"),
        ("http://ws.example.com:443/chat", "http://ws.example.com:443/chat"),
        ("https://ws.example.com/chat:443", "https://ws.example.com/chat:443"),
    ] {
        assert_eq!(url.parse::<Endpoint>().unwrap().as_str(), expected);
    }
    let endpoint: Endpoint = "https://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com:443/dev".parse().unwrap();
    assert_eq!(endpoint.region().unwrap().as_str(), "eu-west-1");
    assert!(endpoint.api().is_some());
}

#[test]
fn end_3_endpoint_is_derived_from_domain_name_or_api_id() {
    let Event::Message(message) = fixture::event("message") else { panic!() };
    let context = message.request_context();
    let expected = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev";
    assert_eq!(Endpoint::from_context(context).unwrap().as_str(), expected);
    let region = Region::new("eu-central-1").unwrap();
    assert_eq!(Endpoint::new(&context.api_id, &region, &context.stage).as_str(), expected);

    let custom = fixture::changed("message", "/requestContext/domainName", "ws.example.com");
    let custom = Event::from_slice(&custom).unwrap();
    assert_eq!(Endpoint::from_context(custom.request_context()).unwrap().as_str(), "https://ws.example.com/dev");
    let local = fixture::changed("message", "/requestContext/domainName", "127.0.0.1:3001");
    let local = Event::from_slice(&local).unwrap();
    assert_eq!(Endpoint::from_context(local.request_context()).unwrap().as_str(), "http://127.0.0.1:3001/dev");
}

#[test]
fn end_4_endpoint_is_read_from_the_environment() {
    let api = [("API_GATEWAY_ID", "a1b2c3d4e5"), ("AWS_REGION", "eu-central-1"), ("STAGE", "dev")];
    assert_eq!(from(&api).unwrap(), new("eu-central-1"));

    let special = ("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", "http://127.0.0.1:3001/dev");
    let general = ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566/_aws/execute-api/a1b2c3d4e5/dev");
    let all = [special, general, api[0], api[1], api[2]];
    let endpoint = from(&all).unwrap();
    assert_eq!((endpoint.as_str(), endpoint.region().unwrap().as_str()), (special.1, "eu-central-1"));
    assert_eq!(from(&all[1..]).unwrap().as_str(), general.1);
    assert_eq!(from(&[("AWS_ENDPOINT_URL", ""), api[0], api[1], api[2]]).unwrap(), new("eu-central-1"));
}

#[test]
fn end_4_missing_variables_are_named() {
    let hint = |missing: &str| {
        format!(
            "the environment has no endpoint: set API_GATEWAY_ID, AWS_REGION and STAGE ({missing} missing), or \
             AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"
        )
    };
    assert_eq!(from(&[]).unwrap_err(), hint("API_GATEWAY_ID, AWS_REGION, STAGE"));
    assert_eq!(from(&[("API_GATEWAY_ID", "a"), ("AWS_REGION", "eu-central-1")]).unwrap_err(), hint("STAGE"));
    assert_eq!(
        from(&[("API_GATEWAY_ID", ""), ("AWS_REGION", "r"), ("STAGE", "s")]).unwrap_err(),
        hint("API_GATEWAY_ID")
    );
    assert_eq!(
        from(&[("API_GATEWAY_ID", "https://x"), ("AWS_REGION", "r"), ("STAGE", "s")]).unwrap_err(),
        "the environment variable API_GATEWAY_ID is not usable: API id \"https://x\" is not valid: expected 1 to 63 \
         letters, digits or `-`"
    );
    assert_eq!(
        from(&[("AWS_ENDPOINT_URL", "localhost:4566")]).unwrap_err(),
        "the environment variable AWS_ENDPOINT_URL is not usable: the endpoint \"localhost:4566\" is not usable: \
         expected `https://` at its start, or `http://` for a gateway on this machine"
    );
}

#[test]
fn end_6_mistakes_are_corrected_or_explained() {
    let host = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com";
    let right = format!("https://{host}/dev");
    for url in [
        format!("https://{host}/dev"),
        format!("https://{host}/dev/"),
        format!("wss://{host}/dev"),
        format!("WSS://{host}/dev//"),
        format!("https://{host}/dev/@connections"),
        format!("https://{host}/dev/@connections/"),
        format!("https://{host}/dev/%40connections"),
        format!("https://{host}/dev/@connections//%40connections/"),
    ] {
        assert_eq!(url.parse::<Endpoint>().unwrap().as_str(), right, "{url}");
    }
    assert_eq!("ws://127.0.0.1:3001/dev".parse::<Endpoint>().unwrap().as_str(), "http://127.0.0.1:3001/dev");
    for (url, shown, expected) in [
        (
            format!("{host}/dev"),
            format!("{host}/dev"),
            "expected `https://` at its start, or `http://` for a gateway on this machine",
        ),
        (
            "ftp://x/dev".to_owned(),
            "ftp://x/dev".to_owned(),
            "expected `https://` at its start, or `http://` for a gateway on this machine",
        ),
        (
            format!("https://{host}"),
            format!("https://{host}"),
            "expected the stage after the host, as in `https://<host>/<stage>`",
        ),
        (
            format!("wss://{host}/"),
            format!("wss://{host}/"),
            "expected the stage after the host, as in `https://<host>/<stage>`",
        ),
        (format!("{right}?Auth=s3cret"), right.clone(), "expected no query and no fragment"),
        ("https:///dev".to_owned(), "https:///dev".to_owned(), "expected a host and a path"),
        ("https://user:s3cret@x/dev".to_owned(), "…".to_owned(), "expected no user and no password"),
        (String::new(), String::new(), "expected `https://` at its start, or `http://` for a gateway on this machine"),
    ] {
        let error = url.parse::<Endpoint>().unwrap_err().to_string();
        assert_eq!(error, format!("the endpoint {shown:?} is not usable: {expected}"));
    }
}

proptest! {
    #[test]
    fn endpoint_round_trips(url in "(https?|wss?)://[a-z.:0-9]{0,20}((/[a-z@%/?#.]{0,12})?(/@connections|/%40connections){0,2}/?)?") {
        if let Ok(endpoint) = url.parse::<Endpoint>() {
            prop_assert_eq!(endpoint.as_str().parse::<Endpoint>().unwrap(), endpoint);
        }
    }

    #[test]
    fn parsing_never_panics(url in ".{0,60}") {
        let _ = url.parse::<Endpoint>();
    }
}

#[test]
fn end_1_default_endpoint_names_its_api_and_stage() {
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("dev").unwrap());
    let expected = Some((&api_id, &stage));
    for region in ["eu-central-1", "cn-north-1", "us-gov-west-1"] {
        assert_eq!(new(region).api(), expected, "{region}");
    }
    for url in ["https://ws.example.com/dev", "http://127.0.0.1:3001/dev", "http://localhost/_aws/execute-api/a/dev"] {
        assert_eq!(url.parse::<Endpoint>().unwrap().api(), None, "{url}");
    }
}

#[test]
fn custom_domain_endpoint_belongs_to_the_given_api() {
    let (api_id, stage) = (ApiId::new("a1b2c3d4e5").unwrap(), Stage::new("dev").unwrap());
    let domain = Endpoint::custom_domain("ws.example.com", "chat").unwrap();
    assert_eq!(domain.api(), None);
    assert_eq!(domain.for_api(api_id.clone(), stage.clone()).api(), Some((&api_id, &stage)));
    let other = ApiId::new("other").unwrap();
    assert_eq!(
        new("eu-central-1").for_api(other, stage.clone()).api(),
        Some((&api_id, &stage)),
        "its host names the API"
    );

    let url = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI";
    let variables = [(url, "http://127.0.0.1:3001/dev"), ("API_GATEWAY_ID", "a1b2c3d4e5"), ("STAGE", "dev")];
    let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    assert_eq!(Endpoint::from_variables(lookup).unwrap().api(), Some((&api_id, &stage)));
}
