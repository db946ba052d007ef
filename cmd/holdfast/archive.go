package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/kube"
)

func newArchive() *cobra.Command {
	command := &cobra.Command{
		Use:   "archive",
		Short: "Inspect, verify and export archives of checkpoints",
		Long: `Inspect, verify and export the archives in which checkpoints of containers are
stored. The files may come from anywhere: what they say is checked, and nothing is
taken from them that their checksums do not cover.`,
		Args: cobra.NoArgs,
	}
	command.AddCommand(newInspect(), newVerify(), newExport())
	return command
}

// archiveOptions are the flags of all commands about archives.
type archiveOptions struct {
	keyFiles []string
	maxSize  string
}

func (o *archiveOptions) addFlags(command *cobra.Command) {
	command.Flags().StringArrayVar(&o.keyFiles, "key-file", nil,
		"file with the key that opens the archive: 32 random bytes, or their 64 hexadecimal digits or base64, or identities of age; may be repeated")
	command.Flags().StringVar(&o.maxSize, "max-size", "1Ti",
		"reject archives whose files are larger together; pages of zeros take no room in an archive, so that a small one may claim any size")
}

// open opens an archive. The caller closes the file.
func (o *archiveOptions) open(path string) (*archive.Reader, *os.File, error) {
	options, err := o.options()
	if err != nil {
		return nil, nil, err
	}
	file, size, err := openFile(path)
	if err != nil {
		return nil, nil, err
	}
	reader, err := archive.Open(file, size, options)
	if err != nil {
		file.Close()
		return nil, nil, o.explain(path, err)
	}
	return reader, file, nil
}

func (o *archiveOptions) options() (archive.OpenOptions, error) {
	options := archive.OpenOptions{}
	size, err := resource.ParseQuantity(o.maxSize)
	if err != nil || size.Sign() <= 0 {
		return options, fmt.Errorf("--max-size=%s: want a number of bytes such as 64Gi", o.maxSize)
	}
	if options.Limits.Total, err = kube.Bytes(size); err != nil {
		return options, fmt.Errorf("--max-size: %w", err)
	}
	for _, path := range o.keyFiles {
		data, err := os.ReadFile(path)
		if err != nil {
			return options, fmt.Errorf("reading the key: %w", err)
		}
		secrets, err := archive.ParseSecrets(data)
		if err != nil {
			return options, fmt.Errorf("--key-file=%s: %w", path, err)
		}
		options.Secrets.Keys = append(options.Secrets.Keys, secrets.Keys...)
		options.Secrets.Identities = append(options.Secrets.Identities, secrets.Identities...)
	}
	return options, nil
}

// explain says what to do about an error.
func (o *archiveOptions) explain(path string, err error) error {
	switch {
	case errors.Is(err, archive.ErrKey) && len(o.keyFiles) == 0:
		return fmt.Errorf("%s: %w: name the file with the key with --key-file", path, err)
	case errors.Is(err, archive.ErrLimit):
		return fmt.Errorf("%s: %w: if you trust where it comes from, raise --max-size", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

func openFile(path string) (*os.File, int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("opening the archive: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, 0, fmt.Errorf("opening the archive: %w", err)
	}
	return file, info.Size(), nil
}

func newVerify() *cobra.Command {
	o, digest := &archiveOptions{}, ""
	command := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check that an archive is whole and unchanged",
		Long: `Read a whole archive, check all checksums, decompress everything, and compare the
index of pages with CRIU's pagemaps. An archive that is not encrypted can be replaced
by another one that is intact: compare its digest with the one in the status of the
Checkpoint with --digest.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return o.verify(command, args[0], digest)
		},
	}
	o.addFlags(command)
	command.Flags().StringVar(&digest, "digest", "", "SHA-256 that the archive must have, as in sha256:9f86d0…")
	return command
}

func (o *archiveOptions) verify(command *cobra.Command, path, digest string) error {
	reader, file, err := o.open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	found, err := reader.Verify(command.Context())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if digest != "" && found.Digest != "sha256:"+strings.TrimPrefix(digest, "sha256:") {
		return fmt.Errorf("%s is intact, but has the digest %s: it is another archive than the expected one", path, found.Digest)
	}
	for _, predecessor := range found.Predecessors {
		fmt.Fprintf(command.ErrOrStderr(), "%s needs an earlier archive, which was not verified: %s\n", path, predecessor)
	}
	fmt.Fprintf(command.OutOrStdout(), "%s is intact: %s\n", path, found.Digest)
	return nil
}

func newExport() *cobra.Command {
	o, output := &archiveOptions{}, ""
	command := &cobra.Command{
		Use:   "export FILE -o FILE",
		Short: "Write the files of a checkpoint as a tar archive",
		Long: `Write the files of a checkpoint as a tar archive in the layout of the kubelet, which
checkpointctl reads and from which container runtimes restore. The tar archive is
neither compressed nor encrypted, and contains the memory of the container. Only its
owner can read it. A file that exists is not overwritten.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			return o.export(command, args[0], output)
		},
	}
	o.addFlags(command)
	command.Flags().StringVarP(&output, "output", "o", "", "tar file to write; - for the standard output (required)")
	if err := command.MarkFlagRequired("output"); err != nil {
		panic(err) // only for a flag that does not exist
	}
	return command
}

func (o *archiveOptions) export(command *cobra.Command, path, output string) error {
	reader, file, err := o.open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if output == "-" {
		err = reader.WriteTar(command.Context(), command.OutOrStdout())
	} else {
		err = writeNew(command.Context(), output, reader.WriteTar)
	}
	if err != nil {
		return fmt.Errorf("exporting %s: %w", path, err)
	}
	return nil
}

// writeNew writes a file that does not exist yet. The file appears when it is complete.
func writeNew(ctx context.Context, path string, write func(context.Context, io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists: delete it or choose another name", path)
	}
	out, err := os.CreateTemp(filepath.Dir(path), ".holdfast-export-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) //nolint:errcheck // an incomplete file is of no use
	err = write(ctx, out)
	if err == nil {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Link(out.Name(), path)
}
