// Command sbom prints the software bill of materials of Go programs, as an SPDX 2.3 document in JSON.
//
//	sbom --name NAME --version VERSION --created 2026-01-02T03:04:05Z PROGRAM...
//
// It reads the modules from the build information that Go stores in each program. Equal programs and flags give equal
// bytes. The last folder of a program's path is its platform, such as linux_amd64/egress-agent.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

func main() {
	name := flag.String("name", "", "the name of the document")
	version := flag.String("version", "", "the version of the programs")
	created := flag.String("created", "", "the time of the document, in RFC 3339")
	flag.Parse()
	if err := run(os.Stdout, *name, *version, *created, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, name, version, created string, programs []string) error {
	at, err := time.Parse(time.RFC3339, created)
	if err != nil {
		return fmt.Errorf("--created: %w", err)
	}
	document := newDocument(name+"-"+version, at)
	for _, program := range programs {
		if err := document.add(program, version); err != nil {
			return err
		}
	}
	if len(document.spdx.Packages) == 0 {
		return fmt.Errorf("no programs: name at least one")
	}
	return json.Write(document.finish(), w, json.Indent("  "))
}

type document struct {
	spdx    *spdx.Document
	modules map[common.ElementID]*spdx.Package
	digest  []byte // of the programs, for a namespace that no other document has
}

func newDocument(name string, created time.Time) *document {
	return &document{
		spdx: &spdx.Document{
			SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: name,
			CreationInfo: &spdx.CreationInfo{
				Creators: []common.Creator{{CreatorType: "Tool", Creator: "egress-control-sbom"}},
				Created:  created.UTC().Format(time.RFC3339),
			},
		},
		modules: make(map[common.ElementID]*spdx.Package),
	}
}

// add adds a program, and the modules of its build information.
func (d *document) add(path, version string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(data)
	d.digest = append(d.digest, digest[:]...)
	name, platform := filepath.Base(path), filepath.Base(filepath.Dir(path))
	program := newPackage(elementID("program", name, platform), name, version)
	program.PackageFileName = platform + "/" + name
	program.PrimaryPackagePurpose = "APPLICATION"
	program.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(digest[:])}}
	d.spdx.Packages = append(d.spdx.Packages, program)
	d.relate("DOCUMENT", common.TypeRelationshipDescribe, program.PackageSPDXIdentifier)

	d.depend(program, "std", strings.TrimPrefix(info.GoVersion, "go"))
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		d.depend(program, module.Path, module.Version)
	}
	return nil
}

// depend says that a program contains a module.
func (d *document) depend(program *spdx.Package, path, version string) {
	id := elementID("module", path, version)
	if d.modules[id] == nil {
		module := newPackage(id, path, version)
		module.PrimaryPackagePurpose = "LIBRARY"
		module.PackageExternalReferences = []*spdx.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: packageURL(path, version),
		}}
		d.modules[id] = module
	}
	d.relate(program.PackageSPDXIdentifier, common.TypeRelationshipContains, id)
}

func (d *document) relate(a common.ElementID, relationship string, b common.ElementID) {
	d.spdx.Relationships = append(d.spdx.Relationships, &spdx.Relationship{
		RefA: common.DocElementID{ElementRefID: a}, RefB: common.DocElementID{ElementRefID: b}, Relationship: relationship,
	})
}

// finish returns the document with its modules, in the order of their names and versions.
func (d *document) finish() *spdx.Document {
	ids := make([]common.ElementID, 0, len(d.modules))
	for id := range d.modules {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		d.spdx.Packages = append(d.spdx.Packages, d.modules[id])
	}
	sum := sha256.Sum256(d.digest)
	// The namespace is a name, not an address: https://spdx.github.io/spdx-spec/v2.3/document-creation-information/
	d.spdx.DocumentNamespace = "https://spdx.org/spdxdocs/" + d.spdx.DocumentName + "-" + hex.EncodeToString(sum[:16])
	return d.spdx
}

func newPackage(id common.ElementID, name, version string) *spdx.Package {
	const unknown = "NOASSERTION"
	return &spdx.Package{
		PackageSPDXIdentifier: id, PackageName: name, PackageVersion: version, PackageDownloadLocation: unknown,
		PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown, PackageCopyrightText: unknown,
		IsFilesAnalyzedTagPresent: true, // with FilesAnalyzed false
	}
}

// elementID returns an identifier of letters, digits, dots and hyphens.
func elementID(parts ...string) common.ElementID {
	return common.ElementID(regexp.MustCompile(`[^A-Za-z0-9.-]+`).ReplaceAllString(strings.Join(parts, "-"), "-"))
}

// packageURL returns the package URL of a Go module (https://github.com/package-url/purl-spec, types/golang).
func packageURL(path, version string) string {
	segments := strings.Split(strings.ToLower(path), "/")
	for i, segment := range segments {
		segments[i] = url.PathEscape(segment)
	}
	return "pkg:golang/" + strings.Join(segments, "/") + "@" + strings.ReplaceAll(url.PathEscape(version), "+", "%2B")
}
