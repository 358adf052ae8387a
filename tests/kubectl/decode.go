// Writes what kubectl's decoder reads in each text of cases.json, which comes in on standard input, into its answers.
package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"strings"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// A case has the text of a file, or the bytes of one that is not UTF-8 in hexadecimal.
type Case struct {
	Text      string `json:"text,omitempty"`
	Hex       string `json:"hex,omitempty"`
	Documents []any  `json:"documents"`
	Error     string `json:"error,omitempty"`
}

// As k8s.io/cli-runtime/pkg/resource: FileVisitor opens the file, StreamVisitor decodes it.
func (c *Case) answer() {
	bytes, err := hex.DecodeString(c.Hex)
	if err != nil {
		log.Fatal(err)
	}
	file := io.MultiReader(strings.NewReader(string(bytes)), strings.NewReader(c.Text))
	utf16bom := unicode.BOMOverride(unicode.UTF8.NewDecoder())
	decoder := yaml.NewYAMLOrJSONDecoder(transform.NewReader(file, utf16bom), 4096)
	c.Documents, c.Error = []any{}, ""
	for {
		var document any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			c.Error = err.Error()
			return
		}
		c.Documents = append(c.Documents, document)
	}
}

func main() {
	var cases map[string]*Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		log.Fatal(err)
	}
	for _, each := range cases {
		each.answer()
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	if err := out.Encode(cases); err != nil {
		log.Fatal(err)
	}
}
