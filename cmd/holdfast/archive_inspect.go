package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/internal/archive"
)

func newInspect() *cobra.Command {
	o, output := &archiveOptions{}, ""
	command := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what an archive contains",
		Long: `Show of which container an archive is, how it was made, and its files. Without the key
of an encrypted archive only its header is shown, and nobody has vouched for it. The
contents of the files are not read: verify does that.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return o.inspect(command.OutOrStdout(), args[0], output)
		},
	}
	o.addFlags(command)
	command.Flags().StringVarP(&output, "output", "o", "", "json for a JSON object instead of a table")
	return command
}

// An inspection is the output of inspect -o json.
type inspection struct {
	archive.Description
	// Authenticated is whether the index was read, and with it the header checked.
	Authenticated bool               `json:"authenticated"`
	Stored        int64              `json:"stored"` // bytes of the archive
	Files         []archive.FileInfo `json:"files,omitempty"`
	Predecessors  []string           `json:"predecessors,omitempty"`
}

func (o *archiveOptions) inspect(w io.Writer, path, output string) error {
	if output != "" && output != "json" {
		return fmt.Errorf("--output=%s: want json or nothing", output)
	}
	found, err := o.describe(path)
	if err != nil {
		return err
	}
	if output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(found)
	}
	return found.print(w)
}

func (o *archiveOptions) describe(path string) (*inspection, error) {
	reader, file, err := o.open(path)
	if errors.Is(err, archive.ErrKey) && len(o.keyFiles) == 0 {
		return describeHeader(path)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening the archive: %w", err)
	}
	return &inspection{
		Description: reader.Description(), Authenticated: true, Stored: info.Size(),
		Files: reader.Files(), Predecessors: reader.Predecessors(),
	}, nil
}

func describeHeader(path string) (*inspection, error) {
	file, size, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	description, err := archive.ReadHeader(file, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &inspection{Description: *description, Stored: size}, nil
}

func (i *inspection) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	id := i.Identity
	fmt.Fprintf(table, "Namespace:\t%s\nPod:\t%s\nPod UID:\t%s\n", id.Namespace, id.Pod, id.PodUID)
	fmt.Fprintf(table, "Container:\t%s\nContainer ID:\t%s\n", id.Container, id.ContainerID)
	fmt.Fprintf(table, "Created:\t%s\n", i.Created.Format("2006-01-02T15:04:05Z07:00"))
	for _, name := range slices.Sorted(maps.Keys(i.Metadata)) {
		fmt.Fprintf(table, "%s:\t%s\n", name, i.Metadata[name])
	}
	encrypted := "no"
	if i.Encrypted {
		encrypted = "with " + strings.Join(i.KeyIDs, " and with ")
	}
	fmt.Fprintf(table, "Encrypted:\t%s\n", encrypted)
	for _, predecessor := range i.Predecessors {
		fmt.Fprintf(table, "Needs:\t%s\n", predecessor)
	}
	if !i.Authenticated {
		fmt.Fprintf(table, "Stored:\t%s\nFiles:\tencrypted: give the key with --key-file\n", bytesOf(i.Stored))
		return table.Flush()
	}
	i.printFiles(table)
	return table.Flush()
}

func (i *inspection) printFiles(table io.Writer) {
	raw, pages := int64(0), archive.PageCount{}
	for _, f := range i.Files {
		raw += f.Size
		if f.Pages != nil {
			pages.Total, pages.Zero, pages.Stored = pages.Total+f.Pages.Total, pages.Zero+f.Pages.Zero, pages.Stored+f.Pages.Stored
		}
	}
	fmt.Fprintf(table, "Files:\t%d with %s, stored in %s\n", len(i.Files), bytesOf(raw), bytesOf(i.Stored))
	fmt.Fprintf(table, "Pages:\t%d of %d bytes, %d of them zeros\n", pages.Total, i.PageSize, pages.Zero)
	fmt.Fprintln(table, "\nNAME\tSIZE\tSTORED\tPAGES\tZEROS")
	for _, f := range i.Files {
		count := "\t"
		if f.Pages != nil {
			count = fmt.Sprintf("%d\t%d", f.Pages.Total, f.Pages.Zero)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Name, bytesOf(f.Size), bytesOf(f.Stored), count)
	}
}

// bytesOf formats a number of bytes: "512 B", "1.5 MiB".
func bytesOf(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[unit])
}
