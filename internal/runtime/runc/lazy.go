package runc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// lazyPort is the port on which CRIU serves pages, in the network namespace of the
	// checkpoint.
	lazyPort = "27000"
	// psClose is PS_IOV_CLOSE of CRIU's page-xfer.c: the client needs no more pages.
	psClose = 0x1023
	// psRequestSize is the size of struct page_server_iov there, in bytes.
	psRequestSize = 32
	// lazyAnswerTime limits what CRIU does between the request to close and its answer.
	lazyAnswerTime = 10 * time.Second
)

// freezeCopy dumps a frozen container lazily: CRIU dumps everything but the private
// memory, which is copied meanwhile.
func (c *checkpoint) freezeCopy(ctx context.Context, r *criuRun) error {
	processes, err := openProcesses(r.target.copied, r.target)
	defer func() {
		for _, p := range processes {
			p.close()
		}
	}()
	if err != nil {
		return err
	}
	if err := copyAreas(processes, true); err != nil {
		return err
	}
	if err := c.begin(ctx, r); err != nil {
		return err
	}
	copyErr := copyAreas(processes, false)
	endErr := c.endLazy(r.ready, copyErr)
	// CRIU's own error says more than that it did not answer.
	return errors.Join(copyErr, r.wait(), endErr)
}

func copyAreas(processes []*processCopy, executable bool) error {
	for _, p := range processes {
		if err := p.run(executable); err != nil {
			return err
		}
	}
	return nil
}

// endLazy waits until CRIU is ready and tells it that no pages are needed. If the copy
// failed, it has CRIU give up.
func (c *checkpoint) endLazy(ready io.Reader, copyErr error) error {
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return fmt.Errorf("waiting for CRIU: %w", err)
	}
	return c.isolated.run(func() error {
		connection, err := net.Dial("tcp", "127.0.0.1:"+lazyPort)
		if err != nil {
			return fmt.Errorf("connecting to CRIU: %w", err)
		}
		if copyErr == nil {
			err = closeLazy(connection.(*net.TCPConn))
		}
		// Without the request CRIU fails when the connection ends, and leaves the container as
		// it was.
		return errors.Join(err, connection.Close())
	})
}

// closeLazy asks CRIU to finish. Unless the writing half is closed at once, CRIU keeps its
// answer back for 200 ms, while the container is frozen.
func closeLazy(connection *net.TCPConn) error {
	if err := connection.SetDeadline(time.Now().Add(lazyAnswerTime)); err != nil {
		return fmt.Errorf("limiting the time for CRIU's answer: %w", err)
	}
	request := make([]byte, psRequestSize)
	binary.LittleEndian.PutUint32(request, psClose)
	if _, err := connection.Write(request); err != nil {
		return fmt.Errorf("asking CRIU to finish: %w", err)
	}
	if err := connection.CloseWrite(); err != nil {
		return fmt.Errorf("asking CRIU to finish: %w", err)
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(connection, answer); err != nil {
		return fmt.Errorf("reading CRIU's answer: %w", err)
	}
	if status := int32(binary.LittleEndian.Uint32(answer)); status != 0 {
		return fmt.Errorf("CRIU finished with status %d", status)
	}
	return nil
}
