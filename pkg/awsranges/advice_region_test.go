package awsranges

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRegionHintNamesTheRegion(t *testing.T) {
	for _, test := range []struct {
		want  string
		names []string
	}{
		{"did you mean us-east-1?", []string{"us-esat-1", "US-EAST-1", " us-east-1 ", "useast1", "us-east1", "us_east_1", "us east 1", "use1", "US East (N. Virginia)",
			"N. Virginia", "us-east-1-fips", "fips-us-east-1", "us-eats-1", "su-east-1", "ec2.us-east-1.amazonaws.com", "arn:aws:sqs:us-east-1:1:q", "\"us-east-1\""}},
		{"did you mean eu-west-1?", []string{"EU (Ireland)", "Europe (Ireland)", "ireland", "euw1", "eu-wset-1", "eu-west1"}},
		{"did you mean ap-southeast-2?", []string{"apse2", "ap-southeast2", "ap-southest-2", "Asia Pacific (Sydney)"}},
		{"did you mean us-gov-west-1?", []string{"usgw1", "us-gov-west1", "AWS GovCloud (US-West)"}},
		{"did you mean GLOBAL?", []string{"global", "Global", "aws-global"}},
		{"it is a zone of us-east-1; did you mean us-east-1?", []string{"us-east-1a", "US-EAST-1F", "use1-az1", "use1-az6"}},
		{"it is a zone of us-gov-west-1; did you mean us-gov-west-1?", []string{"usgw1-az1", "us-gov-west-1b"}},
		{"it is a zone of ap-southeast-2; did you mean ap-southeast-2?", []string{"apse2-az3", "ap-southeast-2c"}},
		{"it is a Local Zone of us-west-2; did you mean us-west-2?", []string{"us-west-2-lax-1", "us-west-2-lax-1a", "usw2-lax1-az1", "us-west-2-las-1b"}},
		{"it is a Local Zone of us-east-1; did you mean us-east-1?", []string{"us-east-1-atl-1a", "us-east-1-nyc-2"}},
		{"it is a Wavelength Zone of us-east-1; did you mean us-east-1?", []string{"us-east-1-wl1-bos-wlz-1", "us-east-1-foe-wlz-1", "use1-wl1-bos-wlz1"}},
		{"it is in another AWS partition, whose ranges AWS does not publish; list its addresses as cidr",
			[]string{"us-iso-west-1", "us-iso-east-1", "us-isob-east-1", "us-isof-south-1", "eu-isoe-west-1"}},
		{"omit regions to allow every region", []string{"*", "all", "any", "ALL", "all-regions", "every"}},
		{"the matching regions are us-east-1 and us-east-2", []string{"us-east", "us-east-3", "us-east-", "us-east-11"}},
		{"the matching regions are eu-west-1, eu-west-2 and eu-west-3", []string{"eu-west", "eu-west-4"}},
		{"the matching regions are eu-central-1, eu-central-2, eu-north-1, eu-south-1, eu-south-2, eu-west-1, eu-west-2 and eu-west-3", []string{"eu", "EU"}},
		{"the matching regions are us-gov-east-1 and us-gov-west-1", []string{"us-gov", "us-gov-1"}},
		{"did you mean af-south-1?", []string{"af", "af-south-2"}},
		{"write each region as a separate item", []string{"us-east-1,us-west-2", "us-east-1 us-west-2"}},
		{"", []string{"", " ", "mars-1", "dublin", "us-central1", "europe-west1", "asia-east1", "eastus", "westeurope", "uksouth", "ca-east-1", "us-central-1", "au-east-1", "local",
			"x", "1", "-", "us", strings.Repeat("us-east-1", 100), "\u200b", "internal-1"}},
	} {
		for _, name := range test.names {
			if name == "us" {
				require.Contains(t, (*Table)(nil).RegionHint(name), "the matching regions are us-east-1, us-east-2, ")
				continue
			}
			require.Equal(t, test.want, (*Table)(nil).RegionHint(name), "%q", name)
		}
	}
	require.True(t, strings.HasSuffix((*Table)(nil).RegionHint("ap"), " and more"))
}

func TestRegionHintSuggestsCustomRegions(t *testing.T) {
	own, err := ReadFile(custom)
	require.NoError(t, err)
	require.True(t, own.KnowsRegion("frankfurt"))
	require.Equal(t, "did you mean frankfurt?", own.RegionHint("frankfrut"))
	require.Equal(t, "did you mean frankfurt?", own.RegionHint("Frankfurt"))
	odd, err := Parse([]byte(`{"prefixes": [{"ip_prefix": "10.0.0.0/8", "service": "X", "region": "cel\u001blar"}]}`))
	require.NoError(t, err)
	require.Empty(t, odd.RegionHint("cellar"), "a hint never contains an unprintable name")
}
